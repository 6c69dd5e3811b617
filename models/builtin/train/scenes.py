"""Scenes that many plots share: how a story opens, who is met, how it feels, how it ends."""

import words as W


def home(s):
    noun = s.rng.choice([h for h in W.HOMES if h not in s.taken])
    adj = s.rng.choice(W.ADJ_HOME) + " " if s.maybe(0.7) else ""
    s.place("p")
    s.bound["homenoun"] = noun
    s.word("home", [f"in a {adj}{noun} [<near> {{p.a}}|<near> {{p}}|]".replace("<near>", s.rng.choice(W.NEAR)),
                    f"in a {adj}{noun}", "{p.ata}", f"{{p.ata}}, in a {adj}{noun}"])
    s.bound["home"] = s.fill(s.bound["home"]).strip()


def opening(s):
    """Introduce the hero `h` and where it lives."""
    s.actor("h", named=0.9)
    home(s)
    h = s.bound["h"]
    r = s.rng.random()
    if not h.name:
        s.say("[Once upon a time|Once|Long ago|A long time ago], there was {h.an} who lived {home}.",
              "[Once upon a time|Long ago|Many years ago], {h.an} lived {home}.",
              "There once was {h.an} who lived {home}.",
              "There was once {h.an}. {h} lived {home}.",
              "The {h.adj} lived {home}.",
              "A {h.adj} lived {home}.",
              "{h.an} lived {home}.")
    elif r < 0.30:
        s.say("Once upon a time, there was {h.a}. {h} lived {home}.",
              "Once upon a time, there was {h.a} who lived {home}.",
              "Once upon a time, there lived {h.a}.",
              "Once upon a time, {home}, there lived {h.a}.",
              "Once upon a time, {h.a} lived {home}.",
              "Once upon a time there was {h.an}. {h.his} name was {h.name}, and {h.he} lived {home}.",
              "Once upon a time, there was {h.a} who <loved> to <hobby>.")
    elif r < 0.62:
        s.say("[Long ago|Once|Many years ago|A long time ago|Far, far away|Not so long ago], there [was|lived] {h.a} who lived {home}."
              .replace("there [was|lived]", "there was"),
              "[Long ago|Many years ago|In a time before clocks|Far away], {home}, there lived {h.a}.",
              "There was once {h.a} who lived {home}.", "There once was {h.a}, and {h.he} lived {home}.",
              "There was {h.a}. {h} lived {home}.", "{p.ata}, there lived {h.a}.",
              "{home}, there lived {h.a}.", "{home} lived {h.a}.",
              "Do you know the story of {h.a}? {h} lived {home}.", "This is the story of {h.a} who lived {home}.",
              "Everyone {p.at} knew {h.a}.", "Once there lived {h.a} who <loved> to <hobby>.",
              "In a far land, {h.a} lived {home}.", "If you ever go {p.to}, you may meet {h.a}.")
    elif r < 0.85:
        s.say("{h.name} was {h.an}. {h} lived {home}.", "{h.name} was {h.an} who lived {home}.",
              "{h.name} the {h.kind} lived {home}.", "A {h.adj} named {h.name} lived {home}.",
              "A {h.kind} named {h.name} lived {home}.", "The {h.adj} {h.name} lived {home}.",
              "The {h.adj} lived {home}. {h.his} name was {h.name}.", "{h.name} lived {home}. {h} was {h.an} who <loved> to <hobby>.",
              "The {h.adj} was called {h.name}, and {h.he} lived {home}.", "{h.an} called {h.name} lived {home}.",
              "My friend {h.name} is {h.an}. This is what happened to {h.him}.", "{h.name} was {h.an} who <loved> to <hobby>.")
    else:
        s.begun = True
        s.say("<when>, {h.a} [woke up early|looked out of the window|could not sleep|sat by the door|was ready for an adventure].",
              "<when>, {h.a} was <doing>.", "It was a <weather> <daypart>, and {h.a} was <doing>.",
              "It was a <weather> <daypart> in <season>. {h.a} was [at home|awake|in a good mood|feeling <glad>].",
              "Every <daypart>, {h.a} [went {p.to}|liked to <hobby>|sat {p.at}].",
              "The {h.adj} {h.name} [woke up|sat down|looked up|was feeling <glad>|was <doing>].")
    if s.maybe(0.75):
        s.say("{h} was [very|] <trait> and <trait>.", "{h} <loved> to <hobby>.", "{h} was <trait>, and {h.he} <loved> to <hobby>.",
              "Every <daypart>, {h} liked to <hobby>.", "{h} was known as a <trait> {h.kind}.",
              "More than anything, {h} liked to <hobby>.", "{h} <loved> to <hobby> and to <hobby>.",
              "When <fact>, {h} <loved> to <hobby>.", "{h.his} friends said that {h.he} was <trait> and <trait>.",
              "Most of all, {h.he} <loved> to <hobby>.", "In <season>, {h} <loved> to <hobby>.")


def when(s):
    """Bind a fresh time for the event that starts the plot."""
    s.word("when", W.LISTS["later" if s.begun else "when"])


def meet(s, slot="f", old=False, named=0.6):
    """The hero comes upon a helper."""
    s.actor(slot, old=old, named=named)
    f = "{%s.a}" % slot
    s.say(f"<soon>, {{h}} met {f} who was <doing>.", f"<spot>, {{h}} met {f}.", f"On the way, {{h}} met {f}, who was <doing>.",
          f"Near the <spotnoun>, {f} was <doing>.", f"Then {{h}} saw {f}.", f"{{h}} {{h.went}} on until {{h.he}} met {f}.",
          f"<soon>, {f} came along.", f"<soon>, {f} {{{slot}.went}} by.", f"There {{h.he}} found {f} who was <doing>.",
          f"Just then, {f} looked out from <spot>.".replace("<spot>", "behind the <spotnoun>"),
          f"{{h}} went to see {f}, who lived <spot>.", f"{{h}} called {f}, who was just <doing>.", f"Not far away, {f} was <doing>.")


def feel(s, slot, mood):
    x = "{%s}" % slot
    his = "{%s.his}" % slot
    he = "{%s.he}" % slot
    if mood == "sad":
        s.say(f"{x} felt <sad>.", f"{x} was <sad>.", f"{x} began to cry.", f"{x} felt so <sad> that {he} could not eat.".replace("so <sad>", "so [sad|upset|worried]"),
              f"{x} sat down <spot> and cried.", f"A tear ran down {his} [face|cheek|nose].", f'"Oh no!" {x} cried.',
              f"{x} was <sad>, and {he} did not know what to do.", f"{x} wanted to cry, but {he} took a deep breath.",
              f"{his} heart felt heavy.", f"{x} looked at the ground and sighed.")
    elif mood == "lonely":
        s.say(f"{x} felt [sad|lonely|very lonely|all alone].", f"{his} heart felt heavy.", f"{x} often sat <spot> and sighed.", f"{x} looked at the [moon|clouds|stars|rain] and sighed.",
              f'"I wish I had a friend," said {x} <softly>.', f"Sometimes {he} talked to the <spotnoun>, but it never answered.")
    elif mood == "glad":
        s.say(f"{x} was <glad>.", f"{x} felt <glad>.", f"{x} smiled a big smile.", f"{x} jumped up and down with joy.",
              f"{x} was so [happy|glad|pleased] that {he} began to [sing|dance|laugh].", f"{x} laughed out loud.", f"{x} danced around the <spotnoun>.",
              f"{his} eyes were shining.", f'"Hooray!" {x} shouted.', f"{x} could not stop smiling.", f"{x} clapped and cheered.",
              f"{x} had never been so happy.")
    else:
        s.say(f"{x} was <scared>.", f"{x} felt <scared>.", f"{x} began to shake.", f"{his} heart beat fast.", f"{x} wanted to run away.",
              f"{x} hid <spot>.", f"{x} closed {his} eyes and held {his} breath.", f"{x} was <scared>, but {he} did not run away.",
              f'"I am scared," {x} whispered.', f"{his} legs were shaking.")


def ask_trouble(s, slot="f"):
    """The helper asks what is wrong."""
    f, h = "{%s}" % slot, "{h.name}"
    s.say(f'"What is [wrong|the matter], little friend?" asked {f}.', f'"Why are you so sad, {h}?" asked {f}.', f'"Why do you look so sad?" {f} asked <softly>.'.replace("<softly>", "[softly|kindly|gently]"),
          f'"Can I help you?" asked {f}.', f'{f} saw that {{h}} was sad and asked, "What happened?"', f'"Hello, {h}," said {f}. "What is wrong?"',
          f'"You look worried," said {f}.', f'{f} stopped and asked what was wrong.', f'"What are you doing here?" asked {f} <softly>.'.replace("<softly>", "[softly|kindly|in surprise]"),
          f'{f} wanted to know why {{h.name}} was so sad.')


def offer(s, slot="f"):
    f = "{%s}" % slot
    s.say(f'"[I will|Let me|I can] help you," said {f}.', f'"Do not worry," said {f} <softly>. "[We will do it together|I have an idea|I know what to do]."'.replace("<softly>", "[softly|kindly|gently|warmly]"),
          f"{f} [thought for a moment|thought about it] and had an idea.", f"{f} wanted to help.", f'"Two are better than one," said {f}. "Come with me!"',
          f'"Do not cry," said {f}. "[I will help|We can fix this|I have an idea]."', f'{f} smiled and [promised|offered] to help.', f'"I know what to do!" said {f} <gladly>.')


def thanks(s, slot="f"):
    f = "{%s.name}" % slot
    him = "{%s.him}" % slot
    s.say(f'"Thank you, {f}!" said {{h}} <gladly>.' if s.bound[slot].name else '"Thank you so much!" said {h} <gladly>.',
          f"{{h}} thanked {f} and gave {him} a [big hug|kiss|flower|shiny stone|warm smile|cookie].", f'"You are a true friend," said {{h}} to {f}.',
          f'{{h}} hugged {f} and said, "Thank you!"', f'"How can I thank you?" asked {{h}}. "Be my friend," said {f}.', f'{{h}} said thank you [three times|again and again|with a deep bow].',
          f'"I will never forget this," {{h}} told {f}.', f"{{h}} thanked {f} with all {{h.his}} heart.")


def lesson(s, *texts):
    """What the hero learned, as a clause without full stop."""
    s.word("lesson", texts)
    s.say("{h} had learned that {lesson}.", "From that day on, {h} knew that {lesson}.", "{h} never forgot that {lesson}.", "Now {h} knew that {lesson}.",
          "And so {h} learned that {lesson}.", "That <daypart>, {h} learned that {lesson}.", "{h} understood that {lesson}.",
          '"Now I know that {lesson}," said {h}.', "After that, {h} always remembered that {lesson}.")


def ending(s, pal="f"):
    f = "{%s.name}" % pal if pal in s.bound else None
    both = [f"{{h.name}} and {f} [were|stayed|became] [best|good|close] friends [for ever|for many years|from then on|].", f"From then on, {{h.name}} and {f} met every <daypart>.",
            f"And {{h.name}} and {f} lived happily ever after.", f"{{h.name}} and {f} went home together while <fact>.".replace("<fact>", "the [sun went down|stars came out|moon was shining]"),
            f"Then {{h.name}} and {f} [sat by the fire|looked at the stars|had tea|ate pancakes|sang a song|laughed] together.",
            f"Every <season>, {{h.name}} and {f} still [talk|laugh|tell stories] about that day."] if f else []
    alone = ["That night, {h} [slept well|had a sweet dream|fell asleep with a smile|dreamed of <season>].", "{h} went home [with a smile|with a light heart|before dark|singing] and [slept well|told everyone|had a warm supper].",
             "It was the best day of {h.his} life.", "{h} went to bed [tired but happy|with a smile|very happy].", "And {h} was never [lonely|sad|bored] again.",
             "In the evening, {h} sat by the [fire|window] and felt <glad>.", "When the sun went down, {h} {h.went} home and felt <glad>.",
             "[What a day it had been|What an adventure it was]!", "And that is how {h.name} the {h.kind} [became a hero|found a friend|had the best <daypart> of all]."
             if s.bound["h"].name else "What a day it had been!", "After that, {h} <loved> to <hobby> even more.".replace("<loved>", "liked")]
    s.say(*(both if both and s.maybe(0.5) else alone))
    if s.maybe(0.12):
        s.say("The end.")
