"""The plots. Each plans a sequence of events around a hero `h`, so that every sentence serves the same story."""

import words as W
from scenes import ask_trouble, ending, feel, home, lesson, meet, offer, opening, thanks, when


def lost(s):
    opening(s)
    s.thing("o", W.CARRY)
    s.word("giver", W.LISTS["relative"])
    s.say("{h} had {o.a}.", "{h} had {o.a} that {h.his} {giver} had made.", "{h.his} {giver} had given {h.him} {o.a}.", "{h} owned {o.a}, and {h.he} took it everywhere.",
          "The thing {h.he} loved most was {o.a}.", "{h.his} favourite thing was {o.a} from {h.his} {giver}.", "{h} had {o.a}, and {h.he} was very proud of it.")
    when(s)
    s.say("{when}, {o} was gone.", "{when}, {h} could not find {o}.", "{when}, {h} lost {o} {p.at}.", "{when}, {h} wanted to play with {o}, but it was not there.",
          "{when}, {h} woke up and saw that {o} was missing.", "{when}, {h} came home without {o}.", "{when}, while {h} was <doing>, {o} disappeared.")
    feel(s, "h", "sad")
    for _ in range(s.rng.choice([1, 1, 2])):
        s.say("{h} looked <spot> and <spot>, but it was not there.", "{h} looked <spot>, but there was only [a sock|a beetle|dust|an old shoe|a spider|a leaf].", "{h} searched <spot>. Nothing!",
              "First {h.he} looked <spot>, and then {h.he} looked <spot>.", '"Where is {o.my}?" {h} asked.', "{h} {h.went} {p.to} and looked <spot>.",
              "{h} turned over every [stone|leaf|pillow|box], but {h.he} could not find it.", "{h} looked everywhere, even <spot>.")
    meet(s)
    ask_trouble(s)
    s.say('"I have lost {o.my}," said {h}.', '"{o.my} is gone," {h} said <softly>.', '"I cannot find {o.my} anywhere," {h} answered.', "{h} told {f.him} about {o}.",
          '"I am looking for {o.my}," said {h} <softly>. "Have you seen it?"')
    offer(s)
    s.word("where", W.LISTS["spot"])
    s.say("[Together|Side by side], they looked <spot>, and [then|after that] they looked {where}.", "{f} [sniffed the air|looked around|listened|climbed on a <spotnoun>] and pointed. Something was {where}.",
          "They looked for it until <fact>.".replace("<fact>", "[the sun went down|the bells rang|noon|evening]"), "{f.name} had seen something {where} that <daypart>.",
          '"I saw something {where}," said {f}.', "They {h.went} {p.to} and looked {where}.")
    s.say("There it was! {o} was {where}.", "And there was {o}!", "{o} was lying {where}, safe and dry.", "<soon>, {h} found {o} {where}.", "{where} they found {o}.",
          "{f} reached down and pulled out {o}.", "There, {where}, was {o}. A [bird|mouse|small beetle|baby frog] was sleeping [in|on] it!")
    feel(s, "h", "glad")
    if s.maybe(0.6):
        thanks(s)
    if s.maybe(0.5):
        s.say("From then on, {h} [kept|held] {o} [close|safe] and never [lost|dropped] it again.", "{h} let {f.him} play with {o} every <daypart>.", "{h} put {o} in a safe place.",
              "Now {h} always knows where {o} is.", "{h} shared {o} with {f.name}.")
    else:
        lesson(s, "things are easier to find with a friend", "it is good to ask for help", "you should look after the things you love", "one must never give up")
    ending(s)


def stuck(s):
    opening(s)
    s.thing("o", W.AIRBORNE)
    s.word("high", ["in a [tall|big|old] tree", "on the roof of the [barn|school|mill|church|{homenoun}]", "on a high [rock|wall|cliff|branch]", "on top of the [tower|windmill|lighthouse|chimney]", "high up in the [oak|pine|apple] tree"])
    s.bound["high"] = s.fill(s.bound["high"])
    when(s)
    s.say("{when}, {h} was playing with {o.a} {p.at}.", "{when}, {h} took {o.a} {p.to}.", "{when}, {h} got {o.a} from {h.his} <relative>.", "{when}, {h} {h.went} {p.to} with {o.a}.",
          "{h} had {o.a}. {when}, {h} took it {p.to}.")
    s.say("A strong wind came and blew {o} away, and it landed {high}.", "Suddenly, the wind took {o} and carried it up. Now it was {high}.", "{o} flew up and up until it was stuck {high}.", "But a gust of wind took it, and {o} got stuck {high}.",
          "{h} threw it too high, and {o} landed {high}.", "Whoosh! The wind blew, and soon {o} was {high}.")
    feel(s, "h", "sad")
    tries = ["{h} jumped [as high as {h.he} could|again and again|up and down], but {h.he} could not reach it.", "{h} threw a [stick|stone|shoe|pine cone] at it, but it did not move.", "{h} tried to climb up, but {h.he} slipped and fell into the [mud|grass|leaves|snow].",
             "{h} stood on a [box|barrel|log|pile of stones], but {h.he} was still too small.", "{h} called to the wind, but the wind did not answer.", "{h} waited for it to fall down, but it stayed {high}.", "{h} shook and pushed with all {h.his} strength, but nothing happened."]
    picked = s.rng.sample(tries, s.rng.choice([1, 2, 2]))
    s.say("[First, |]" + picked[0])
    for t in picked[1:]:
        s.say("Then " + t, t, "After that, " + t)
    meet(s)
    s.say('"Please help me," said {h}. "{o.my} is {high}."', '"Can you get {o.my}?" asked {h}.', '"{o.my} is stuck {high}," {h} said <softly>.', "{h} pointed at {o} and told {f.him} what had happened.", "{h} asked {f.him} for help.")
    offer(s)
    s.say("{f} [had a long rope|brought a ladder|found a long pole|made a hook from a branch], and soon {o} came down.", "{h} climbed on {f.his} back and reached for {o}. Now {h.he} was tall enough!", "{f} blew [a whistle|a horn|as hard as {f.he} could], and {o} [fell down|floated down slowly].",
          "{f} called all {f.his} friends, and they stood on top of each other until they could reach {o}.", "{f} shook the <spotnoun> until {o} fell down.".replace("the <spotnoun>", "and pulled"), "{f} climbed up [slowly|quickly|carefully] and came back with {o}.", "{f} tied a [spoon|hook|broom] to a stick, and with it they got {o} down.")
    feel(s, "h", "glad")
    if s.maybe(0.6):
        thanks(s)
    if s.maybe(0.6):
        s.say("Then they played with {o} until [evening|it was dark|supper|the stars came out].", "{h} and {f.name} took turns with {o}.", "After that, {h} held {o} [very|] tightly.", "Now {h} never played with {o} when the wind was strong.")
    else:
        lesson(s, "together you can reach what you cannot reach alone", "asking for help is not a shame", "even a small idea can solve a big problem", "friends make you taller")
    ending(s)


def broken(s):
    opening(s)
    s.thing("o", W.FRAGILE)
    s.actor("f", old=True, named=0.6)
    if s.maybe():
        s.say("{h.his} neighbour was {f.a}.", "Next door lived {f.a}.", "{f.a} lived nearby.", "{h} often visited {f.a}.", "{h} had a good friend, {f.a}.")
        s.say("The best thing in {f.his} house was {o.a}.", "{f} had got {o.a} from {f.his} <relative>.", "{f} had {o.a}, and {f.he} was very proud of it.", "{f} owned {o.a}, which {f.he} loved very much.")
    else:
        s.say("Next door lived {f.a}, who had {o.a}.", "{f.a} lived nearby and had {o.a}.", "{h} knew {f.a}, who owned {o.a}.", "{h} worked for {f.a}, who had {o.a}.")
        s.say("{f} loved {f.his} {o.noun} very much.", "{f} was very proud of {f.his} {o.noun}.", "It was the best thing in {f.his} house.", "{f} had got {o} from {f.his} <relative>.")
    when(s)
    s.say("{when}, {h} was running and [bumped into|knocked over] {o}. It fell down and broke.", "{when}, {h} wanted to [look at|hold|clean] {o}, but it slipped and broke.", "{when}, {h} played too wildly, and {o} broke into [two|three|many] pieces.", "{when}, there was a loud crash. {h} had broken {o}!",
          "{when}, {h} picked up {o} without asking. Crack! It broke.")
    feel(s, "h", s.rng.choice(["sad", "scared"]))
    hid = s.maybe(0.55)
    if hid:
        s.say("{h} hid the pieces <spot>.", "{h} put the broken {o.noun} <spot> and {h.went} away.", "{h} hid everything <spot> and hoped that nobody would see them.", "Nobody had seen it, so {h} ran home.")
        s.say('"Who broke {o.my}?" asked {f}.', "{f} came home and looked for {f.his} {o.noun}.", 'When {f.name} came back, {f.he} asked, "Where is {o.my}?"', "In the evening, {f} was very sad.")
        s.say("{h} could not look up.", '"It was the wind," said {h}, but it was not true.', "{h} said nothing, but {h.his} stomach hurt.", "All night, {h} could not sleep.", '"I do not know," {h} said, and {h.his} face turned red.')
        s.say("At last, {h} told the truth.", "The next day, {h} went back and told {f.him} everything.", '<soon>, {h} said, "It was me. I am sorry."', '"I did it," {h} said at last. "I broke {o}."')
    else:
        s.say('"I am so sorry," {h} said. "I broke {o.my}."'.replace("{o.my}", "your {o.noun}"), "{h} {h.went} to {f.name} and told the truth.", "{h} took a deep breath and told {f.him} what had happened.", '"It was my fault," {h} said <softly>.', "{h} could have run away, but {h.he} waited for {f.name}.")
    s.say("{f} was quiet for a while. Then {f.he} smiled.", "{f} was not angry.", '"Thank you for telling me," said {f}.', '"Everyone makes mistakes," said {f} <softly>.'.replace("<softly>", "[softly|kindly|gently]"), "{f} was sad, but {f.he} [was glad that {h.name} was honest|hugged {h.name}].", '"I am glad that you told the truth," said {f}.')
    s.say("Together, they fixed {o} with [glue|string|nails|wood|tape].", "{h} got some [glue|paint|string|wood], and they mended {o}.", "They worked all <daypart>, and soon {o} was as good as new.", "{h} helped {f.him} to repair {o}. It took a long time, but it worked.", "{h} saved [coins|pennies] for [a week|many days] and bought {f.him} a new {o.noun}.",
          "They painted {o} [red|blue|green|yellow], and it looked even better than before.")
    lesson(s, "it is better to tell the truth", "the truth is easier to carry than a lie", "honest friends are the best friends", "everyone makes mistakes", "saying sorry is brave", "a mistake can be mended")
    ending(s)


def found(s):
    opening(s)
    s.thing("o", W.CARRY)
    when(s)
    s.word("where", W.LISTS["spot"])
    s.say("{when}, {h} found {o.a} {where}.", "{when}, something was shining {where}. It was {o.a}!", "{when}, {h} {h.went} {p.to} and found {o.a}.", "{when}, {h} nearly fell over {o.a} that lay {where}.", "{when}, {h} saw {o.a} {where}, but nobody was near.")
    s.say('"Whose {o.noun} is this?" {h} wondered.', '"What a nice {o.noun}!" said {h}.', "{h} wanted to keep it.", "It was so [pretty|fine|beautiful] that {h} wanted to keep it.", '"Somebody must be missing it," thought {h}.', "{h} looked at {o} for a long time.")
    s.say("But {h} knew that it belonged to somebody.", '"I must find the owner," {h} said.', "So {h.he} {h.went} off to find the owner.", "{h} decided to give it back.", '"I would be sad if I lost it," {h.he} thought.', "Still, it was not {h.hers}.")
    s.actor("x", named=0.3)
    s.say('{h} met {x.a} and asked, "Is this your {o.noun}?" But it was not {x.hers}.', 'First {h.he} asked {x.a}. "No," said {x}, "I have never seen it."', '"Is it yours?" {h} asked {x.a}, who was <doing>. "No," said {x}.', "{h} asked {x.a}, but {x.he} only shook {x.his} head.", "{h} showed it to {x.a}, but {x.he} had [lost nothing|never seen it].")
    if s.maybe(0.4):
        s.say('"Try {p.at}," said {x}.'.replace("{p.at}", "the market|the next house|the school".split("|")[s.rng.randrange(3)]), '"Maybe the owner is near the <spotnoun>," said {x}.')
    s.actor("f", named=0.7)
    s.say("<soon>, {h} saw {f.a} who was crying.", "<spot>, {f.a} was looking for something.", "Then {h} heard somebody cry. It was {f.a}.", "<soon>, {f.a} came along and looked very sad.", "At the <spotnoun> sat {f.a} with a sad face.")
    s.say('"I have lost {o.my}," said {f}.', '"Have you seen {o.my}?" {f} asked.', '"{o.my} is gone, and I got it from my <relative>," said {f}.', "{f} was looking for {f.his} {o.bare}.")
    s.say('"Here it is!" said {h} and gave it to {f.him}.', '{h} held up {o}. "Is this it?"', "{h} gave {f.him} {o}.", "{h} smiled and put {o} in front of {f.him}.", '"I found it {where}," said {h}.')
    feel(s, "f", "glad")
    s.say('"You are very honest," said {f}.', "{f} gave {h.him} [a cookie|a hug|a silver coin|an apple|a flower|a warm bun] to say thank you.", '"Thank you! Do you want to play with me?" asked {f}.', "{f} invited {h.name} to [supper|tea|a party|lunch].", "{f} let {h.name} play with {o} [all <daypart>|for a while].", '"Thank you," said {f} <gladly>. "You are so kind."')
    if s.maybe(0.5):
        lesson(s, "it feels good to be honest", "giving back is better than keeping", "a friend is worth more than a thing", "kindness comes back")
    else:
        feel(s, "h", "glad")
    ending(s)


def share(s):
    opening(s)
    s.thing("o", W.FOOD, W.ADJ_FOOD)
    when(s)
    s.say("{when}, {h} had {o.a}.", "{when}, {h} got {o.a} from {h.his} <relative>.", "{when}, {h} bought {o.a} at the market.", "{when}, {h} found {o.a} on the table.", "{when}, {h} sat <spot> with {o.a}.")
    s.say("It smelled [wonderful|so good|sweet|delicious].", "{h} was very hungry.", '"This is all for me," said {h}.', "{h} could not wait to eat it.", "It was the best {o.noun} {h.he} had ever seen.")
    meet(s)
    s.say('"I am so hungry," said {f}.', '"May I have a little?" asked {f} <softly>.', "{f} had not eaten since [yesterday|morning|the day before].", "{f} looked at {o} with big eyes.", '"That {o.noun} smells good," said {f}.', '"Could you share {o} with me?" asked {f}.')
    if s.maybe(0.6):
        s.say('"No!" said {h}. "It is mine."', "{h} did not want to share, and {h.he} {h.went} away.", '{h} held {o} tightly and said, "No, it is all for me."', "{h} turned around and hid {o} <spot>.", "{h} shook {h.his} head.")
        s.say("{f} went away with a sad face.", "{f} said nothing and looked at the ground.", "A tear ran down {f.his} face.", '"That is all right," {f} said <softly>.', "{f} sat down <spot> all alone.")
        s.say("{h} took a bite, but it did not taste good.", "Now {h} was alone, and {o} was not so nice any more.", "{h} felt bad.", "{h} looked at {o}, and {h.he} was not hungry any more.", "{h} thought about {f.name} and could not eat.", "Suddenly, {h} remembered how it was to be hungry.")
        s.say('"Wait!" {h} called. "Come back!"', "So {h} {h.went} after {f.him}.", '"I am sorry," said {h}. "Let us share."', "{h} looked for {f.name} and found {f.him} <spot>.", "Then {h} had a better idea.")
    else:
        s.say('"Of course," said {h}.', '"There is enough for two," said {h} <gladly>.', "{h} thought for a moment and smiled.", "{h} looked at {o}. It was small, but {h.he} wanted to share.", '"Sit down with me," said {h}.')
    s.say("{h} gave {f.him} half of {o}.", "{h} cut {o} into two pieces, one for each of them.", "They sat down <spot> and ate {o} together.", "They shared {o}, and it tasted better than ever.", "{h} gave {f.him} the bigger half.")
    feel(s, "f", "glad")
    s.say('"[Tomorrow|Next time|Next week] I will bring {x0}," said {f}.'.replace("{x0}", "something for you"), "To say thank you, {f} [showed {h.him} a secret place|sang a song|told a funny story|taught {h.him} a game|gave {h.him} a flower].", '"You are kind," said {f}.', "Then they played [hide and seek|ball|a new game] until <fact>.".replace("<fact>", "[evening|it was dark|the sun went down]"), "{f} told {h.him} a story about a [king|whale|dragon|ghost|magic tree].")
    lesson(s, "food tastes better with a friend", "sharing makes everyone happy", "half a {o.noun} with a friend is better than a whole one alone".replace("{o.noun}", s.bound["o"].noun), "those who share are never alone", "there is always enough for two")
    ending(s)


FEARS = {
    "the dark": ("it was dark", ["went out into the dark night", "walked through the dark cellar", "stepped into the dark"], "the dark was full of stars"),
    "thunder": ("there was thunder", ["went out into the storm", "ran through the storm", "walked out under the black clouds"], "thunder is only a noise"),
    "deep water": ("{h.he} saw deep water", ["stepped into the water", "jumped into the cold water", "got into the little boat"], "the water could carry {h.him}"),
    "high places": ("{h.he} looked down", ["climbed up step by step", "climbed the tall ladder", "went over the high bridge"], "the view from above was beautiful"),
    "the big dog next door": ("the dog barked", ["walked up to the big dog", "went through the gate", "held out {h.his} hand to the dog"], "the dog only wanted to play"),
    "the deep forest": ("{h.he} saw the trees", ["stepped between the dark trees", "went into the deep forest", "followed the small path through the trees"], "the forest was full of friendly sounds"),
    "loud noises": ("there was a bang", ["went into the noisy hall", "walked past the loud drums", "went towards the noise"], "a noise cannot hurt anybody"),
    "strangers": ("somebody came to the door", ["opened the door", "walked up to the stranger", "said hello"], "a stranger can become a friend"),
    "ghosts": ("the floor creaked", ["went up to the attic", "opened the old door", "looked under the bed"], "the ghost was only a white sheet"),
}


def fear(s):
    opening(s)
    thing = s.rng.choice(list(FEARS))
    sign, steps, truth = FEARS[thing]
    s.bound.update(fear=thing, sign=s.fill(sign), step=s.fill(s.rng.choice(steps)), truth=s.fill(truth))
    s.say("But {h} was afraid of {fear}.", "There was one thing {h} did not like: {fear}.", "{h} had a secret. {h.he} was afraid of {fear}.".replace("{h.he} was", "{h} was"), "{h} was not afraid of anything but {fear}.", "Only {fear} made {h.him} shake.")
    s.say("Whenever {sign}, {h} hid <spot>.", "When {sign}, {h.his} heart beat fast.", "Each time {sign}, {h} ran home.", '"I am too small," {h} always said.', "The others laughed at {h.him}.", "When {sign}, {h} closed {h.his} eyes and counted to ten.")
    s.actor("f")
    when(s)
    s.say("{when}, {f.a} did not come home.", "{when}, {f.a} needed help.", "{when}, {h} heard a cry for help. It was {f.a}!", "{when}, {h.his} friend, {f.a}, got lost.", "{when}, {f.a} was hurt and could not walk.")
    s.say("To help {f.him}, {h} had to be brave.", "Nobody else was there to help.", "There was no time to lose.", '"Somebody must go," said {h}. "But I am afraid of {fear}."', "{h} thought about {fear} and wanted to run away.", "There was only one way, and {h} did not like it.")
    feel(s, "h", "scared")
    s.say('"I can do it," {h} whispered.', "{h} took a deep breath.", "But then {h.he} thought about {f.name}.", "{h} held {h.his} <thing0> tightly.".replace("<thing0>", s.rng.choice(W.CARRY)), "{h} began to [sing|hum|count] to feel braver.", "{h} shook all over, but {h.he} did not turn back.")
    s.say("Then {h.he} {step}.", "{h} {step}.", "Slowly, {h.he} {step}.", "With a loud heart, {h} {step}.", "One, two, three! {h} {step}.")
    s.say("It was not so bad. {truth}.", "And what do you think? {truth}.", "To {h.his} surprise, {truth}.", "{h} saw that {truth}.", "After a few steps, {h.he} found that {truth}.")
    s.say("<soon>, {h} found {f.name} <spot> and [helped {f.him} up|took {f.him} home|held {f.him} tightly].", "{h} found {f.name} at last, and together they {h.went} home.", "There was {f.name}, cold but safe.", '"You came!" cried {f}.', "{h} reached {f.name} and [brought {f.him} home|gave {f.him} a warm blanket|helped {f.him} to stand].")
    s.say('"You are so brave," said {f}.', '"Were you not afraid?" asked {f}. "I was," said {h}, "but I came."', "{f} thanked {h.name} again and again.", "Everyone was proud of {h.name}.", "{f} [told everyone|told the whole village] what {h.name} had done.")
    lesson(s, "being brave means to go on when you are afraid", "fear gets smaller when you look at it", "even the smallest can be brave", "{fear} can be beaten".replace("{fear} can be beaten", "it is all right to be afraid"), "love is stronger than fear")
    ending(s)


TRAPS = {
    "in a deep hole": ["let down a rope", "put a long branch into the hole", "filled the hole with leaves, step by step", "made a ladder from sticks"],
    "in a thorn bush": ["cut the thorns one by one", "bent the branches back", "pulled carefully", "held the thorns away with a stick"],
    "in an old net": ["bit through the net", "cut the net with a sharp stone", "untied the knots one by one", "pulled the net away"],
    "on a rock in the river": ["pushed a log into the water", "made a bridge from stones", "threw a long rope", "came with a little boat"],
    "under a fallen tree": ["pushed the tree with all {h.his} strength", "used a strong branch to lift the tree", "dug away the earth", "rolled the tree away"],
    "in the mud": ["laid wooden boards on the mud", "pulled with a rope", "pulled and pulled", "brought dry straw and branches"],
    "on thin ice": ["lay down flat and held out a stick", "pushed a sled over the ice", "threw a scarf", "crept over the ice very slowly"],
    "in a tall tree": ["brought a ladder", "held out a blanket and called", "climbed up from branch to branch", "piled up boxes"],
    "behind a heavy door": ["found the key under a stone", "pushed with all {h.his} strength", "opened the lock with a bent nail", "climbed through a small window"],
}


def rescue(s):
    opening(s)
    when(s)
    trap = s.rng.choice(list(TRAPS))
    s.bound["trap"] = trap
    ways = s.rng.sample(TRAPS[trap], 2)
    s.bound["way"], s.bound["fail"] = s.fill(ways[0]), s.fill(ways[1])
    s.actor("f")
    s.say("{when}, {h} heard a cry.", "{when}, while {h} was <doing>, somebody called for help.", "{when}, {h} was on the way {p.to}.", "{when}, {h} {h.went} {p.to} to <hobby>.", '"Help! Help!" somebody called {when0}.'.replace("{when0}", "one <weather> <daypart>"))
    s.say("It was {f.a}, who was stuck {trap}.", "There was {f.a}, stuck {trap}.", "{h} {h.went} closer and saw {f.a} who was trapped {trap}.", "{f.a} was stuck {trap} and could not get out.", "{h} looked around and found {f.a} {trap}.")
    s.say('"Please help me," said {f}. "I cannot get out."', "{f} was tired and cold.", '"I have been here since [morning|yesterday|last night]," said {f}.', "{f} was very frightened.", '"Do not go away," {f} cried.', "{f.his} eyes were full of tears.")
    s.say('"Do not be afraid," said {h}. "I will help you."', '"I will get you out," {h} promised.', "{h} did not think twice.", '"Hold on!" called {h}.', "{h} was small, but {h.he} wanted to help.", '"Stay calm," {h} said <softly>.'.replace("<softly>", "[softly|kindly|gently]"))
    s.say("First {h.he} {fail}, but it did not work.", "{h} {fail}, but that was not enough.", "{h} looked for [a rope|help|a good idea], but there was nothing.", "{h} tried and tried, but {f.name} was still stuck.", "At first, nothing worked.")
    helper = s.maybe(0.35)
    if helper:
        s.actor("x", named=0.4)
        s.say("Then {x.a} came to help.", "{h} called {x.a}, who {x.went} over at once.", "<soon>, {x.a} came by and wanted to help.")
        s.say("Together, they {way}.".replace("{way}", s.bound["way"].replace("all her", "all their").replace("all his", "all their")), "{h} and {x.name} {way}.".replace("{way}", s.bound["way"].replace("all her", "all their").replace("all his", "all their")))
    else:
        s.say("Then {h} had an idea. {h.he} {way}.", "So {h} {way}.", "Next, {h} {way}.", "But {h} did not give up. {h.he} {way}.", "Then {h.he} {way}, and it worked.")
    s.say("<soon>, {f} was free.", "{f} came out, [dirty|wet|tired|shaking] but safe.", "One more try, and {f.name} was free!", "And then {f.name} was safe at last.", "{f} was free again.", "It took a long time, but in the end {f.name} was safe.")
    feel(s, "f", "glad")
    s.say('"You saved my life," said {f}. "How can I thank you?"', '"Thank you, {h.name}!" said {f}.' if s.bound["h"].name else '"Thank you!" said {f}.', "{f} thanked {h.name} and promised to help one day.", "{f} gave {h.name} [a golden feather|a kiss|a blue stone|a ring|a lucky coin|a warm hug].", '"If you ever need help, call me," said {f}.')
    if s.maybe(0.35):
        s.say("Some weeks later, {h} got lost [in the fog|in the snow|in the woods], and it was {f.name} who showed {h.him} the way home.", "In the <season>, it was {f.name} who helped {h.him}.", "The next <season>, {h} needed help, and {f.name} came at once.")
    if s.maybe(0.5):
        lesson(s, "even a small {h.kind} can do great things".replace("{h.kind}", s.bound["h"].kind), "nobody is too small to help", "a good deed is never lost", "helping others makes the heart warm", "you should never pass by when somebody needs you")
    ending(s)


def bake(s):
    opening(s)
    s.thing("o", W.DISHES, W.ADJ_FOOD)
    s.actor("f")
    miss, other = s.rng.sample(W.INGREDIENTS, 2)
    s.bound.update(miss=miss, other=other)
    when(s)
    s.say("{when}, it was the birthday of {h.his} friend, {f.a}.", "{when}, {f.a} was ill in bed.", "{when}, {h} wanted to make a surprise for {h.his} friend, {f.a}.", "{when}, there was a party {p.at}, and {f.a} had invited everyone.", "{when}, {h} remembered that {f.a} was lonely.")
    s.say("{h} wanted to make {o.a} for {f.him}.", '"I will make {o.a}," said {h}.', "{h} decided to make {o.a}.", "So {h} put on an apron to make {o.a}.", '"{o.a} will make {f.him} happy," thought {h}.')
    s.say("{h} took {other} and a big [bowl|pot|spoon], but {h.he} could not find any {miss}.", "But when {h} looked in the cupboard, the {miss} jar was empty.", "There was enough {other}, but {h.he} had forgotten the {miss}.".replace("enough", "plenty of"), "{h} needed {other} and {miss}, but the {miss} jar was empty.", '"Oh dear," said {h}. "I forgot to buy {miss}!"')
    s.actor("x", named=0.5)
    s.say("{h} {h.went} to {x.a} and asked for {miss}.", 'So {h.he} asked {x.a}, "Do you have some {miss}?"', "At the market, {h} met {x.a} who sold {miss}.", "{x.a} had a whole basket of {miss}.", "<spot>, {h} met {x.a} who had some {miss}.")
    s.thing("t", W.CARRY)
    trade = s.maybe(0.6)
    if trade:
        s.say('"I will give you {miss} for {t.a}," said {x}.', '"First find {t.my}," said {x}.'.replace("{t.my}", "me {t.a}"), "But {x} wanted {t.a} for it.", '"Bring me {t.a}, and you can have it all," said {x}.')
        s.say("{h} looked <spot> and found {t.a}.", "Luckily, {h} had {t.a} at home.", "{h} gave {x.him} {t}, and {x.he} was happy.", "{h} thought for a while, and then {h.he} gave {x.him} {t}.")
    else:
        s.say('"Take as much as you need," said {x}.', "{x} smiled and filled a [cup|basket|bag] with {miss}.", '"What is it for?" asked {x}. "For a friend," said {h}.', "{x} gave {h.him} the {miss} and asked for [a small piece|a slice|a taste] later.")
    s.say("Now {h} could begin.", "{h} {h.went} home as fast as {h.he} could.", "Back at home, {h} mixed the {miss} with the {other}.", "{h} mixed and stirred until {h.his} arms hurt.", "{h} added the {miss}, and it smelled wonderful.", "Soon there was flour everywhere, even on {h.his} nose.")
    if s.maybe(0.35):
        s.say("{o} came out a little [burnt|crooked|flat], but {h} was proud of it.", "{o} nearly fell down on the way, but {h.he} caught it just in time.", "{h} tasted it three times to be sure.", "It looked funny, but it smelled very good.")
    s.say("Then {h} took {o} to {f.name}.", "{h} carried {o} to {f.name} while <fact>.", "When it was ready, {h} knocked at {f.his} door.", '"Surprise!" called {h} and put {o} on the table.', "In the evening, {h} gave {o} to {f.name}.")
    s.say('"Is that for me?" asked {f}.', '"This is the best {o.noun} in the world," said {f}.', '"How kind of you!" said {f} <gladly>.', "{f} took a bite and closed {f.his} eyes.", "{f} ate [three pieces|two big pieces|every bit of it].")
    feel(s, "f", "glad")
    if trade and s.maybe(0.4) or s.maybe(0.3):
        s.say("{x.name} came too, and they all ate together.", "They asked {x.name} to come, and there was enough for everyone.")
    if s.maybe(0.4):
        lesson(s, "the best gifts are made by hand", "a surprise makes two people happy", "good things take time", "a little work can make a friend very happy")
    ending(s)


GAMES = W.words("""hide and seek, a game of ball, chess, a race to the old oak, jumping over puddles, telling riddles, building a sand castle, flying paper planes,
skipping stones, making music with spoons, drawing funny faces, rolling down the hill, a treasure hunt, making shadows on the wall""")


def friend(s):
    opening(s)
    s.say("But {h} had no [friends|friend to play with].", "But {h} was often lonely.", "{h} had everything but a friend.", "{h} was new {p.at} and did not know anybody.", "Nobody wanted to play with {h.him}, because {h.he} was so [shy|small|loud|quiet|different].", "All day long, {h} played alone.")
    feel(s, "h", "lonely") if s.maybe(0.6) else None
    when(s)
    s.actor("f")
    s.say("{when}, {h} saw {f.a} who was <doing> all alone.", "{when}, {f.a} came to live {p.at}.", "{when}, {h} {h.went} {p.to} and saw {f.a}.", "{when}, {f.a} sat <spot>.", "{when}, {h} heard somebody <doing0>. It was {f.a}.".replace("<doing0>", "[laughing|singing|crying|humming]"))
    s.say("{h} wanted to say hello, but {h.he} was too shy.", '"What if {f.he} does not like me?" thought {h}.', "{h} hid <spot> and looked at {f.him}.", "{h} opened {h.his} mouth, but no word came out.", "At first, they only looked at each other.", "{h} took one step, and then another.")
    game = s.rng.choice(GAMES)
    s.bound["game"] = game
    s.thing("o", W.CARRY)
    if s.maybe(0.5):
        s.say("Then {f} dropped {f.his} {o.bare}, and {h} picked it up.", "The wind blew {f.name}'s {o.noun} away, and {h} ran after it.", "{h} had {o.a} with {h.him}, and {f.name} looked at it.", "{f} was holding {o.a}.")
        s.say('"Here you are," said {h} <softly>.', '"I like your {o.noun}," said {h} <softly>.', '"Here it is," said {h}.')
    else:
        s.say("Then {h} took all {h.his} courage and said hello.", '"Hello," said {h} <softly>. "I am {h.name}."' if s.bound["h"].name else '"Hello," said {h} <softly>.', 'At last, {h} asked, "Would you like to play with me?"', "So {h} drew a smile in the sand, and {f.name} drew one too.")
    s.say('"My name is {f.name}," {f.he} said. "What is yours?"' if s.bound["f"].name else '"I am new here," said {f}.', '"Do you want to play?" asked {f}.', '"I was hoping that somebody would talk to me," said {f}.', "{f} smiled, and {h} smiled back.", '"I am lonely too," said {f} <softly>.', '"I have no friends here," said {f}.')
    feel(s, "h", "glad")
    s.say("They tried {game}, and they laughed a lot.", "{f} knew a game: {game}.", "All <daypart>, they enjoyed {game}.", "Soon they were busy with {game}.", '"Let us try {game}!" said {f}.', "They spent the <daypart> with {game}.")
    if s.maybe(0.5):
        s.say("{h} told {f.him} about the <spotin>, and {f} told {h.him} about the sea.".replace("the <spotin>", "{p}"), "When they were tired, they sat <spot> and shared a <foodx>.".replace("<foodx>", s.rng.choice(["bun", "pear", "sandwich", "plum", "cookie", "melon"])), "{f} was better at jumping, and {h} was better at hiding.", "Sometimes {h} won, and sometimes {f.name} won.", "They found out that they both liked to <hobby>.", "{h} showed {f.him} how to <hobby>.")
    s.say('"Will you come again tomorrow?" asked {h}.', '"Let us meet here every day," said {f}.', '"You are my best friend," said {h}.', "When <fact>, it was time to go home.", '"I am so glad that I met you," said {f}.')
    if s.maybe(0.5):
        lesson(s, "a kind word can make a friend", "you only have to say hello", "friends can be very different", "nobody has to be alone", "it is worth being brave")
    ending(s)


SOURCES = {
    "a kitten with a tin can": "a kitten was playing with a tin can", "a loose window": "the wind was moving a loose window",
    "a baby owl": "a baby owl was calling for its mother", "an old clock": "an old clock was ringing all by itself",
    "a snoring bear": "a fat bear was snoring", "two frogs": "two frogs were singing a song", "a family of mice": "a family of mice was having a party",
    "a ball": "a ball was rolling down the stairs", "a branch": "a branch was knocking on the roof", "a lost puppy": "a lost puppy was scratching at the door",
    "a hedgehog": "a hedgehog had its head stuck in a jar", "a dripping pipe": "water was dripping into a pot", "a goat": "a goat was eating the old broom",
    "a bird": "a bird was building a nest in the chimney", "a kettle": "somebody had forgotten the kettle", "a parrot": "a parrot was telling itself jokes",
}


def noise(s):
    opening(s)
    s.bound["n"] = s.expand("<noise>")
    s.bound["nn"] = s.bound["n"].split(" ", 1)[1]
    source = s.rng.choice(list(SOURCES))
    s.bound.update(source=source, truth=SOURCES[source])
    s.word("where", ["under the [bed|floor|roof|stairs]", "in the [attic|cellar|chimney|shed|barn|kitchen|cupboard|garden]", "behind the [wall|door|hedge|curtain|old wardrobe]", "outside the [window|door|gate]"])
    s.say("One night, {h} heard {n} {where}.", "One <weather> night, there was {n} {where}.", "In the middle of the night, {h} woke up. There was {n} {where}.", "One evening, when <fact>, {h} heard {n} {where}.", "Late one evening, {n} came from somewhere {where}.".replace("somewhere ", ""))
    s.say('"What was that?" whispered {h}.', '"Who is there?" asked {h}, but nobody answered.', "{h} sat up and listened.", '"Is it a monster?" {h} wondered.', "{h} pulled the blanket over {h.his} head.", "Then everything was quiet. But after a minute, {h} heard the {nn} again.")
    feel(s, "h", "scared")
    if s.maybe(0.65):
        s.actor("f")
        s.say("{h} ran to wake {h.his} friend, {f.a}.", "{h} called {f.a}, who lived next door.", "{h.his} friend, {f.a}, had heard it too.", "Just then, {f.a} knocked at the window.")
        s.say('"Maybe it is [a ghost|a monster|a thief|a wolf|a dragon]," said {f}.', '"Do not be silly," said {f}. "Let us look."', '"We will find out together," said {f}.', '"I am not afraid," said {f}, but {f.his} voice was shaking.')
        s.say("They took a [lantern|candle|lamp] and {h.went} towards the {nn}.", "Hand in hand, they followed the {nn}.", "Step by step, they came closer to the {nn}.", "{h} went first, and {f.name} came after {h.him}.", "{f} carried a [broom|big spoon|stick|frying pan], and {h} carried a [lamp|candle|lantern].")
        they = "they"
    else:
        s.say("But {h} was curious.", '"I must know what it is," {h} said.', "{h} could not sleep, so {h.he} got up.", "{h} was tired of being afraid.")
        s.say("{h} took a [lantern|candle|lamp] and {h.went} towards the {nn}.", "With a [broom|big spoon|stick|frying pan] in {h.his} hand, {h} followed the {nn}.", "Step by step, {h} came closer to the {nn}.", "{h} went down the stairs on the tips of {h.his} toes.")
        they = "{h}"
    s.say(f"The {{nn}} got louder and louder.", f"A shadow moved {{where}}.", f"{they} saw two [bright|yellow|green|round] eyes.", "The floor creaked at every step.", f"Now it came from right {{where}}.".replace("right ", ""))
    s.say(f"{they} looked {{where}}, and there was {{source}}!", f"{they} held up the light. {{truth}}!", f"It was only {{source}}. {{truth}}.", f"And what did {they} see? {{truth}}!", f"There was no monster {{where}}. {{truth}}!")
    s.say("{h} laughed until {h.his} stomach hurt.", '"So that was it!" said {h}.', '"And I was so afraid," {h} said <gladly>.'.replace("<gladly>", "with a laugh"), "{h} began to laugh, and all the fear was gone.", '"Hello, you!" said {h}. "You gave me a fright."')
    s.say("After that, {h} {h.went} back to bed and slept until [morning|noon|the sun came up].", "Then {h} made [hot milk|tea|some toast|soup], because nobody could sleep any more.", "From then on, {h} was not afraid of the night.", "Now {h} likes the sounds of the night.", "It was a short night, but a funny one.")
    if s.maybe(0.6):
        lesson(s, "many things are not as bad as they sound", "fear makes small things big", "it is good to look before you run away", "the night is full of little wonders")
    if "f" in s.bound:
        ending(s)


BARRIERS = {
    "a wide river": ["found a fallen tree and walked across it", "made a raft from old branches", "jumped from stone to stone", "crossed it in a small boat"],
    "a high wall": ["found a little door in it", "climbed over it with a rope", "dug a hole under it", "walked around it until the gate appeared"],
    "a thick fog": ["followed the sound of the bells", "counted every step", "held on to the fence", "waited until the sun came out"],
    "a deep valley": ["went over it on a shaky bridge", "slid down and climbed up again", "flew across in a basket with a balloon", "followed the goats' path"],
    "a sleeping dragon": ["crept past it on the tips of the toes", "sang it a lullaby", "tickled its nose until it moved", "gave it a bag of pepper cakes"],
    "a field of thorns": ["cut a small path with a stick", "crept through it like a snail", "wrapped old leaves around both feet", "went around it by the lake"],
    "a locked gate": ["found the key under a flower pot", "squeezed through the bars", "told the guard a joke", "climbed over it"],
    "a big storm": ["waited in a cave until it was over", "hid under a cart", "went on with a leaf as an umbrella", "found shelter in an old mill"],
    "a broken bridge": ["mended it with a rope", "built a new one from branches", "jumped over the gap", "swam through the cold water"],
}


def journey(s):
    opening(s)
    s.place("q")
    s.actor("g", old=True, named=0.5)
    s.thing("o", W.CARRY)
    when(s)
    s.say("{when}, {h} had to take {o.a} to {g.a}, who lived {q.at}.", "{when}, {h} set off to bring {o.a} to {g.a} {q.at}.", "{when}, a letter came from {g.a}. {g} needed {o.a} and lived far away {q.at}.", '{when}, {h.his} <relative> said, "Please take {o.a0} to {g.a} {q.at}."'.replace("{o.a0}", "this {o.bare}"), "{when}, {h} promised to carry {o.a} to {g.a} {q.at}.")
    s.say("The way was long, but {h} was <glad>.", "{h} packed [bread|an apple|some cheese|a bottle of water|a sandwich] and {h.went} off.", "It was a long way, and <fact>.", '"I will be there before dark," said {h}.', "{h} put {o} in a bag and {h.went} off.", "{h} {h.went} over [hills|fields|stones] and through [the woods|deep grass|the mud].")
    for i, b in enumerate(s.rng.sample(list(BARRIERS), s.rng.choice([1, 2]))):
        w1 = s.rng.choice(BARRIERS[b])
        s.bound.update(b=b, way=w1)
        s.say("<soon>, {h} came to {b}.", "But there was {b} in the way.", "Then {b} stopped {h.him}.", "Halfway there, {h} came to {b}.", "[First|Next], {h.he} came to {b}.".replace("[First|Next]", "First" if i == 0 else "Next"))
        if s.maybe(0.5):
            s.say('"What now?" thought {h}.', "{h} sat down to think.", '"I must not give up," said {h}.', "{h} looked left and right.", "For a moment, {h} wanted to turn back.")
        s.say("{h} {way}.", "So {h} {way}.", "But {h} was <trait> and {way}.", "After some time, {h.he} {way}.", "{h} thought of {g.name} and {way}.")
    if s.maybe(0.5):
        s.actor("f")
        s.say("Under the stars, {h} met {f.a}, who was going the same way.", "On the road, {f.a} asked, \"Where are you going?\"", "<soon>, {h} met {f.a}, who was lost.", "Then {f.a} {f.went} up and wanted to come along.")
        s.say("They {h.went} on together, and the way seemed shorter.", '"Come with me," said {h}, and so they were two.', "{f} knew the way {q.to} and showed it to {h.name}.", "They shared [some bread|an apple|a blanket|a song], and then they {h.went} on.")
    s.say("At last, {h} reached {q}.", "When {h} came {q.to}, <fact>.", "In the evening, {h} saw {q}.", "And then, behind the last hill, there was {q}.", "After a long day, {h} was {q.at}.")
    s.say("{g} was [waiting at the door|standing at the window|<doing>].", "{h} knocked three times, and {g} opened the door.", "{g} was already waiting.", '"You really came!" said {g}.')
    s.say("{h} gave {g.him} {o}.", '"Here is your {o.noun}," said {h}.', "{h} took {o} out of the bag.", '"I brought you {o}," said {h} <gladly>.')
    feel(s, "g", "glad")
    s.say('"You are a <trait> {h.kind}," said {g}. "Thank you."', "{g} gave {h.him} [hot soup|a warm bed|sweet tea|a big supper|a new hat] and told {h.him} a story.", '"Stay here tonight," said {g}, and {h} was glad to rest.', "{g} thanked {h.name} and [made supper|lit a fire|played a song].")
    if s.maybe(0.5):
        lesson(s, "a long way begins with one step", "a promise must be kept", "every wall has a way around it", "one can do more than one thinks")
    ending(s, "f" if "f" in s.bound else "g")


def race(s):
    opening(s)
    s.actor("f")
    s.thing("o", W.words("cup, medal, crown, ribbon, bell, trophy, star, hat, flag, coin, whistle"))
    s.word("contest", ["race {around}".replace("{around}", "[around the lake|to the old mill|up the hill|through the woods|across the field|to the sea|over the hills|down the river]"), "[swimming|singing|jumping|running|kite|boat|sled|cooking|dancing|pancake|painting] contest"])
    when(s)
    s.say("{when}, there was a big {contest}.", "{when}, everyone came to see the great {contest}.", "{when}, {h} heard about a {contest}.", "{when}, a {contest} was held {p.at}.")
    s.say("The winner would get {o.a}.", "The prize was {o.a}.", "Whoever won would get {o.a}.", "{h} wanted to win {o.a}.")
    s.say("{f.a} laughed and said, \"You will never win.\"", '"I am the best," said {f.a}.', "{f.a} wanted to win too.", "{f.a} had won it every year.", "Next to {h.him} stood {f.a}, who was very proud.", "But {f.a} had practised for weeks.")
    feel(s, "h", s.rng.choice(["scared", "sad"])) if s.maybe(0.5) else None
    s.say("{h} practised every <daypart>.", '"I will do my best," said {h}.', "{h} did not say anything, but {h.he} worked hard.", "For weeks, {h} practised <spot>.", '"We will see," said {h}.', "{h} was nervous, because everyone was watching.")
    s.say("Then the bell rang, and it began.", "One, two, three, go!", "The horn sounded, and everybody cheered.", "Soon the great day came.", "When the flag went down, they began.")
    s.say("{f} was much better at first.", "{f} was ahead from the start.", "At first, {h} was last.", "{f} went in front, and {h} came after {f.him}.", "{h} did very well, and {f} was surprised.")
    kind = s.maybe(0.6)
    if kind:
        s.say("But then {f} [fell|slipped] and hurt {f.his} [foot|leg|knee|arm].", "Suddenly, {f} [fell into a ditch|got stuck in the mud|fell over a stone].", "But {f} went too fast and [fell into the pond|bumped into a <spotnoun>|lost {f.his} way].")
        s.say("{h} could have won now, but {h.he} stopped.", '"Are you hurt?" asked {h}.', "{h} turned around and helped {f.him}.", "{h} did not think about the prize.", '"Take my hand," said {h}.')
        if s.maybe(0.3):
            s.say('"Why did you stop?" asked {f}. "Because you need me," said {h}.', '"Do not wait for me," said {f}. But {h} shook {h.his} head.')
        s.say("They came to the end together, side by side.", "{h} helped {f.him} to the end, and everyone cheered.", "They finished last, but everyone cheered.", "Together, they went on, slowly, step by step.")
        s.say("The judge gave {o} to both of them.", "{f} won nothing that day, but {f.he} won a friend.", "The judge smiled and gave {o} to {h.name}.", '"You should have {o}," said {f}.', "They shared the prize.")
        s.say('"I am sorry that I laughed at you," said {f}.', '"Thank you," said {f} <softly>.', "{f} was not so proud any more.")
        lesson(s, "helping is better than winning", "a friend is the best prize", "kindness is the greatest victory", "it is not important to be first")
    else:
        s.say("But {f} was so sure that {f.he} [stopped for a nap|stopped to eat|looked at the clouds|talked to everyone].", "But {f} became tired, and {h} did not stop.", "Then {f} made a mistake, and {h} saw {h.his} chance.", "{h} went on, slowly but surely.")
        s.say("In the end, {h} won {o}.", "To everyone's surprise, {h} was first.", "And so {h} won by a nose.", "{h} came first, and the crowd cheered.")
        feel(s, "h", "glad")
        s.say('"You were better," said {f}, and {f.he} gave {h.him} {f.his} hand.', "{f} was angry at first, but then {f.he} laughed.", "{h} showed {o} to everybody.", "{h} put {o} on the shelf at home." if s.maybe(0.7) else "{h} shared the joy with {f.name}.")
        lesson(s, "those who never give up can win", "hard work is better than big words", "the proud can lose", "practice helps")
    ending(s)


def garden(s):
    opening(s)
    s.thing("o", W.PLANTS, W.COLOURS + W.ADJ_THING, plain=1)
    s.word("seed", ["a tiny seed", "a brown seed", "a strange seed", "a little seed", "a golden seed", "a round seed"])
    s.actor("f")
    when(s)
    s.say("{when}, {h} found {seed}.", "{when}, {h.his} <relative> gave {h.him} {seed}.", "{when}, {f.a} gave {h.him} {seed}.", "{when}, a bird dropped {seed} in front of {h.him}.", "{when}, {h} bought {seed} for one coin.")
    s.say('"What will it be?" asked {h}.', '"It will be {o.a}," thought {h}.', "{h} wanted to grow {o.a}.", "{h} put it into the earth <spot>.", "{h} made a hole <spot> and put the seed into it.")
    s.say("Every <daypart>, {h} gave it water.", "{h} watered it and waited.", "{h} [sang to it|talked to it|told it stories] every <daypart>.", "{h} pulled out the weeds and kept the snails away.", "{h} put a small fence around it.")
    s.say("But nothing happened for [many days|a week|a long time].", "Days went by, but there was only brown earth.", "After a week, there was still nothing.", "{h} waited and waited, but nothing came up.")
    s.say('"It will never grow," said {f.a}, and {f.he} laughed.' if s.maybe(0.5) else '{f.a} came by and said, "You need patience."', "{f.a} looked over the fence. \"Give it time,\" {f.he} said.", "{f.a} came by and asked, \"What are you waiting for?\"", '"You are wasting your time," said {f.a}.')
    feel(s, "h", "sad") if s.maybe(0.5) else s.say("But {h} did not give up.", "{h} was patient and went on.", '"I can wait," said {h}.')
    if s.maybe(0.5):
        s.say("Then there was a [storm|frost|dry week|heavy rain], and {h} [put a blanket over the earth|carried water from the river|stayed up all night].", "One night it became very cold, and {h} covered the place with [straw|leaves|a blanket].", "A [goat|crow|rabbit|mole] wanted to dig it up, but {h} sent it away.")
    s.say("Then, one <weather> morning, there was a small green leaf.", "And one morning, something green looked out of the earth.", "<soon>, a green tip came out of the ground.", "After the rain, {h} saw two tiny leaves.")
    feel(s, "h", "glad")
    s.say("It grew and grew until it was {o.a}.", "Week by week it grew, and in <season> it was {o.a}, the [biggest|finest|most beautiful] of all.", "By the end of the <season>, it had become a big {o.noun}.".replace("<season>", "[summer|year]"), "It grew taller than {h.him}. It was a wonderful {o.noun}!")
    s.say("Everyone came to see {o}.", "{f} came back and could not believe {f.his} eyes.", '"You were right to wait," said {f}.', "{h} invited {f.name} to sit near {o}.", '"How did you do it?" asked {f}. "With water and time," said {h}.')
    s.say("{h} gave {f.him} a seed from {o}.", "Now {h} has a whole garden.", "In <season>, {h} gave seeds to [everyone|all {h.his} friends|the neighbours].", "{h} shared what {o} had given with {f.name}.".replace("what {o} had given", "the new seeds"))
    lesson(s, "good things need time", "patience makes things grow", "great things begin small", "one must not give up too early")
    ending(s)


WISHES = [
    ("to be as tall as a tower", "could not fit through the door", "was small again"), ("to fly like a bird", "could not come down again", "stood on the ground again"),
    ("to turn everything into gold", "could not eat golden bread", "could eat real bread again"), ("to be invisible", "was so lonely, because nobody could see {h.him}", "could be seen again"),
    ("to have a hundred cakes", "had a terrible stomach ache", "felt well again"), ("for snow in summer", "saw that all the flowers were cold", "saw the sun again"),
    ("to talk to the moon", "could not sleep, because the moon talked all night", "could sleep in peace again"), ("for a house of chocolate", "saw the house melt in the sun", "had the old {homenoun} back"),
    ("to be a king", "had to sit still all day", "was just a {h.kind} again"), ("to be faster than the wind", "could not stop running", "could walk slowly again"),
    ("that it was always night", "missed the sun very much", "saw the sun rise"), ("to be very rich", "had to count coins all day and all night", "had time to play again"),
    ("never to work again", "was terribly bored", "was happy to have something to do"), ("that the toys could talk", "could not hear a word in all that noise", "enjoyed the silence"),
]


def wish(s):
    opening(s)
    s.thing("o", W.MAGIC, W.COLOURS + W.words("old, strange, shiny, tiny, dusty"), plain=0.05)
    want, bad, good = (s.fill(x) for x in s.rng.choice(WISHES))
    s.bound.update(want=want, bad=bad, good=good)
    when(s)
    s.say("{when}, {h} found {o.a} <spot>.", "{when}, {h} found {o.a} {p.at}.", "{when}, {h.his} <relative> gave {h.him} {o.a}.", "{when}, {o.a} fell from the sky.", "{when}, {h} helped {x.an}, who gave {h.him} {o.a}." if s.actor("x", old=True, named=0) and s.maybe(0.99) else "{when}, {h} found {o.a}.")
    s.say("It was magic!", "It was a magic {o.noun}, but {h} did not know that.", '"Make a wish," said a voice from {o}.', "When {h} touched it, it began to [glow|sing|hum|shake].", '"I can grant one wish," {o} whispered.', "Suddenly, {o} began to speak.")
    s.say("{h} wished {want}.", '"I wish {want}!" said {h}.' if not want.startswith("for") else "{h} wished {want}.", "{h} did not think for long and wished {want}.", "All {h.his} life, {h} had wished {want}. So that was the wish.", "{h} closed {h.his} eyes and wished {want}.")
    s.say("[Bang|Puff|Whoosh|Pling]! The wish came true.", "There was a flash of light, and it was done.", "The air was full of [sparks|stars|smoke|glitter], and the wish came true.", "At once, it happened.", "In the blink of an eye, the wish came true.")
    feel(s, "h", "glad")
    s.say("But soon {h} {bad}.", "At first, it was fun. But then {h.he} {bad}.", "But the next <daypart>, {h} {bad}.", "It was not as nice as it seemed. {h} {bad}.", "But after a while, {h} {bad}.")
    feel(s, "h", "sad")
    meet(s, old=True)
    s.say('"Be careful what you wish for," said {f}.', '"Why did you wish {want}?" asked {f}.' if not want.startswith("never") else '"What did you wish?" asked {f}.', "{h} told {f.him} about {o}.", '"I made a silly wish," said {h} <softly>.', '"What happened to you?" asked {f}.')
    s.say('"You must [hold {o} and say sorry|turn {o} around three times|put {o} into the river|give {o} away|say the wish backwards]," said {f}.', '"Only a kind wish can undo it," said {f}. "Wish something for a friend."', "{f} knew what to do: {h} had to [bring {o} back|sing to {o}|throw {o} into the well|put {o} in the moonlight].", '"Give {o} back, and all will be well," said {f}.')
    s.say("{h} did it at once.", "So {h} did what {f.name} had said.", "{h} ran as fast as {h.he} could and did it.", "{h} was glad and followed {f.his} advice.", '"I will do it," said {h}.')
    s.say("And then {h} {good}.", "<soon>, everything was as before, and {h} {good}.", "The magic ended, and {h} {good}.", "There was a soft sound, and {h} {good}.")
    lesson(s, "wishes should be made with care", "what you have may be the best of all", "happiness cannot be wished for", "home is best as it is", "not every wish is wise")
    ending(s)


SKILLS = {
    "swim": ["swallowed a lot of water", "sank like a stone", "splashed in all directions"], "whistle": ["only made a sound like a sad kettle", "blew until {h.his} face was red", "made no sound at all"],
    "read": ["mixed up all the letters", "held the book upside down", "could not tell one letter from another"], "ride a bicycle": ["fell into a bush", "rode into the pond", "fell off after two metres"],
    "dance": ["stepped on everybody's toes", "fell over the table", "turned left when all the others turned right"], "bake bread": ["burned it until it was black", "forgot the salt", "made a bread as hard as a rock"],
    "skate": ["fell down ten times", "slid into a heap of snow", "could not stop"], "play the violin": ["made the cats run away", "broke a string", "sounded like an old door"],
    "draw a horse": ["drew something like a potato", "gave it five legs", "broke the pencil"], "sing": ["sounded like a crow", "forgot the words", "sang so loudly that the windows shook"],
    "juggle": ["dropped every ball", "hit a lamp", "got a ball on the nose"], "count to one hundred": ["always stopped at twelve", "forgot the number seven", "mixed up all the numbers"],
    "climb trees": ["slid down again", "got stuck on the first branch", "fell into the grass"], "sew": ["sewed the sleeve to {h.his} own coat", "lost the needle", "made one leg too short"],
    "tie a knot": ["tied {h.his} own fingers together", "made a knot that fell apart", "got lost in the rope"], "walk on a rope": ["fell into the hay", "took only one step", "lost {h.his} hat"],
}


def learn(s):
    opening(s)
    skill = s.rng.choice(list(SKILLS))
    s.bound["skill"] = skill
    fails = [s.fill(x) for x in s.rng.sample(SKILLS[skill], 2)]
    s.bound.update(fail=fails[0], fail2=fails[1])
    when(s)
    s.say("But {h} could not {skill}.", "{h} wanted to learn to {skill}.", "More than anything else, {h} wanted to {skill}.", "All {h.his} friends could {skill}, but {h} could not.", "{h} dreamed that {h.he} could {skill}.")
    s.say("{when}, {h.he} tried, but {h.he} {fail}.", "{when}, {h} tried to {skill}, but {h.he} {fail}.", "{when}, {h} wanted to try it. {h} {fail}.")
    s.say("Everybody laughed.", "{h} tried again and {fail2}.", '"I will never learn it," said {h}.', "The second time, {h.he} {fail2}.", "Some children laughed at {h.him}.", "{h} tried once more, but {h.he} {fail2}.")
    feel(s, "h", "sad")
    meet(s, old=s.maybe(0.6))
    ask_trouble(s) if s.maybe(0.5) else None
    s.say('"I cannot {skill}," said {h}.', '"I want to {skill}, but I am not good at it," {h} said <softly>.', "{h} told {f.him} that {h.he} could not {skill}.", '"Can you {skill}?" asked {h}.')
    s.say('"When I was young, I could not {skill} either," said {f}.', '"Nobody is born a master," said {f}.', '"I will show you," said {f}. "Try it slowly."', '"You must practise a little every day," said {f}.', "{f} smiled and showed {h.him} how to begin.", '"Do not think of the others," said {f}. "Just try again."')
    s.say("So they practised together <spot>.", "Every <daypart>, {h} went to {f.name} and practised.", "They practised in the sun and in the rain.", "{f} was very patient.", "They began with small steps.", "On Monday it went badly, on Tuesday a little better, and on Friday it went quite well.")
    s.say("{h} made many mistakes, but {h.he} did not stop.", "Sometimes {h} {fail}, but then they only laughed.", "Once {h.he} {fail2}, but {f.name} helped {h.him} up.".replace("helped {h.him} up", "only smiled"), "After each try, it went a little better.", "{h} got tired, but {h.he} tried again.")
    s.say("And then, one <weather> <daypart>, {h} could {skill}!", "<soon>, it worked. {h} could {skill}!", 'After many days, {h} shouted, "Look, I can {skill}!"', "In <season>, {h} could {skill} better than anyone else {p.at}.", "Suddenly, it was easy to {skill}.")
    feel(s, "h", "glad")
    if s.maybe(0.5):
        s.say("Those who had laughed now wanted to learn it too.", "Everyone clapped, and {f.name} clapped loudest.", "Now {h} teaches others to {skill}.", "{f} was proud of {h.name}.")
    lesson(s, "practice makes it easier", "nobody can do everything at once", "you must not be afraid of mistakes", "with patience you can learn anything", "a good teacher is a friend")
    ending(s)


MATERIALS = W.words("wood, branches, straw, stones, old boxes, planks, ropes, clay, nails, cloth, bricks, leaves, bottles, wheels")


def build(s):
    opening(s)
    s.thing("o", W.BUILDS, W.ADJ_THING + W.COLOURS)
    m1, m2 = s.rng.sample(MATERIALS, 2)
    s.bound.update(m1=m1, m2=m2)
    when(s)
    s.say("{when}, {h} had an idea. {h} wanted to build {o.a}.", "{when}, {h} decided to build {o.a}.", '{when}, {h} said, "I will build {o.a}."', "{when}, {h} dreamed of {o.a} and wanted to build it.", "{h} had always wanted {o.a}. {when}, {h} began to build it.")
    s.say("{h} looked for {m1} and {m2}.", "First {h.he} needed {m1}.", "{h} took {m1}, {m2} and a [hammer|saw|long rope|pot of paint].", "{h} found some {m1} <spot>.", "{h} carried {m1} from {p} all <daypart>.")
    s.say("But {o} fell down.", "But the {m1} broke, and {o} fell apart.", "{h} worked all day, but in the evening {o} fell over.", "Then a storm came and blew {o} down.", "But it was too heavy for one {h.kind}.", "Soon {h} saw that it was too much work for one.")
    feel(s, "h", "sad")
    meet(s)
    s.say('"What are you doing?" asked {f}. "I am building {o.a}," said {h}.', '"That will never hold," said {f}. "You need {m2}."', '"Can I help?" asked {f}.', '"What is that going to be?" asked {f}.', "{f} looked at {o} and scratched {f.his} head.")
    s.say("{h} wanted to do it alone, but then {h.he} said yes.", '"Yes, please," said {h}.', '"I would be glad," {h} answered.', "{h} was glad to have help.", "{h} told {f.him} about the plan.")
    s.say("{f} brought {m2}, and {h} held everything together.", "{f} was good with {m2}, and {h} was good with a hammer.", "{h} held the {m1} while {f.name} tied them with a rope.".replace("them", "everything"), "{f} measured, and {h} cut.", "They put the {m2} at the bottom and the {m1} on top.")
    if s.maybe(0.5):
        s.say("They worked while <fact>.", "They sang while they worked.", "At noon, they shared [a sandwich|a melon|some soup|bread and cheese].", "It rained, but they did not stop.", "Once {h} hit {h.his} thumb, but {h.he} only laughed.")
    s.say("At last, {o} was ready.", "When <fact>, {o} was finished.", "After three days, {o} was done, and it was strong.", "In the end, they painted it [red|blue|green|yellow|white], and {o} was ready.", "Then they stepped back and looked at {o}. It was perfect.")
    feel(s, "h", "glad")
    s.say('"We did it!" said {f}.', '"It is the best {o.noun} in the world," said {h}.', "Everyone {p.at} came to see it.", '"Who may try it first?" asked {f}. "Both of us," said {h}.', "They tried it at once, and it worked.", "They gave {o} a name: {h.name}'s Wonder." if s.bound["h"].name else "They were very proud of {o}.")
    lesson(s, "two can do what one cannot", "it is more fun to work together", "a good plan is half the work", "one should not give up after the first try", "many hands make light work")
    ending(s)


PLOTS = [lost, stuck, broken, found, share, fear, rescue, bake, friend, noise, journey, race, garden, wish, learn, build]
