"""Word lists of the story grammar.

Lists used by name inside templates (`<mood_sad>`) live in `LISTS`; an entry may itself be a template.
Kinds of characters carry what the grammar must know to talk about them: how they move.
"""


def words(text):
    """Split a block of comma-separated entries, so that lists stay readable."""
    return [w.strip() for w in text.replace("\n", " ").split(",") if w.strip()]


# ---- characters -------------------------------------------------------------------------------------------

GIRLS = words("""Lily, Mia, Anna, Rose, Ella, Nora, Clara, Sophie, Ruby, Daisy, Maya, Zoe, Lucy, Emma, Ivy, Hazel,
Tilda, Greta, Wanda, Olive, Pearl, Luna, Stella, Flora, Nina, Lena, Tess, Molly, Poppy, Willa, Edith, Ida, Martha, Freya,
Sally, Amy, Kate, Jane, Elsa, Penny, Dora, Fern, Juniper, Marigold, Saffron, Biscuit, Pebble, Dot, Pip, Maple, Honey,
Clover, Tansy, Bramble, Snowy, Button, Velvet, Misty, Coral, Amber""")
BOYS = words("""Tom, Ben, Max, Sam, Leo, Jack, Tim, Oscar, Hugo, Felix, Milo, Otto, Finn, Noah, Theo, Arlo, Jasper, Rufus,
Gus, Henry, Peter, Oliver, Walter, Albert, Victor, Simon, Martin, Nico, Emil, Anton, Bruno, Karl, Lars, Ned, Ralph, Toby,
Archie, Barney, Cosmo, Dexter, Edgar, Fergus, Basil, Bolt, Rusty, Copper, Sprocket, Cinder, Ash, Flint, Moss, Thistle,
Acorn, Bumble, Nutmeg, Pickle, Rocket, Smoky, Patch, Storm""")
# Invented names: a model that has only seen sixty names recites them; one that has seen thousands copies them.
NAME_HEADS = words("""Ba, Be, Bi, Bo, Da, De, Do, Fa, Fi, Fo, Ga, Go, Ha, Hu, Ja, Jo, Ka, Ki, Ko, La, Le, Lo, Lu, Ma, Me, Mi, Mo,
Na, Ne, Ni, No, Pa, Pe, Pi, Po, Qui, Ra, Re, Ri, Ro, Ru, Sa, Se, Si, So, Ta, Te, Ti, To, Tu, Va, Ve, Wi, Wo, Ya, Za, Ze, Zi, Zo,
Bra, Cra, Dra, Fli, Gri, Kra, Plo, Sni, Spa, Tri, Al, El, Or, Ur, Is, An""")
NAME_MIDDLES = words("bb, dd, gg, ll, mm, nn, pp, rr, tt, zz, l, m, n, r, s, v, d, k, b, z, ri, la, mo, na, ra, li")
NAME_TAILS_F = words("a, ia, ina, elle, ette, y, ie, ita, ora, una, isa, ea")
NAME_TAILS_M = words("o, us, in, ert, le, er, or, ick, ox, um, ius, an, ok, on")

WALK = "walked, hurried, ran, wandered, marched, strolled"
CHILD = "walked, ran, skipped, hurried, wandered, raced"
FOUR_LEGS = "trotted, ran, padded, hurried, wandered, walked"
SMALL = "scurried, ran, hurried, crept, scampered, wandered"
HOP = "hopped, bounced, jumped along, hurried"
BIRD = "flew, flapped, fluttered, hopped"
BIG = "stomped, walked, lumbered, marched, wandered"
SLOW = "crawled, walked slowly, plodded, wandered"
WADDLE = "waddled, hurried, walked, marched"
ROLL = "rolled, walked, marched, whirred, hurried"

# movement → kinds; sex is free unless the noun says so
KINDS = {
    CHILD: words("girl, boy, girl, boy, princess, prince, elf, shepherd girl, shepherd boy, farm girl, farm boy"),
    WALK: words("""sailor, baker, farmer, witch, wizard, king, queen, pirate, knight, gardener, fisherman, inventor, painter,
        tailor, clockmaker, miller, postman, woman, man, grandmother, grandfather, shoemaker, beekeeper, lighthouse keeper,
        cook, dwarf, musician, juggler, doctor, scarecrow, snowman"""),
    FOUR_LEGS: words("""fox, cat, dog, puppy, kitten, wolf, pony, horse, donkey, goat, sheep, lamb, deer, pig, lion, tiger, badger,
        calf, zebra, leopard, reindeer, llama, unicorn"""),
    SMALL: words("mouse, squirrel, hedgehog, mole, lizard, rat, hamster, ant, beetle, spider, raccoon, weasel, chipmunk, otter, beaver"),
    HOP: words("rabbit, frog, hare, kangaroo, toad, cricket, bunny, grasshopper"),
    BIRD: words("""owl, crow, sparrow, robin, parrot, swan, seagull, wren, raven, eagle, pigeon, bee, butterfly, bat, fairy,
        dragonfly, finch, stork, firefly"""),
    BIG: words("bear, elephant, giant, troll, dragon, hippo, rhino, cow, moose, panda, ogre, ox, gorilla, camel, giraffe, monster"),
    SLOW: words("turtle, snail, tortoise, caterpillar, crab, sloth"),
    WADDLE: words("duck, penguin, goose, hen, duckling, chick, rooster, turkey"),
    ROLL: words("robot, robot, tin robot, toy soldier, clockwork dog"),
}
FEMALE = set(words("girl, princess, shepherd girl, farm girl, witch, queen, woman, grandmother, hen, cow"))
MALE = set(words("""boy, prince, shepherd boy, farm boy, wizard, king, fisherman, postman, man, grandfather, rooster, snowman, ox"""))
GROWN = set(KINDS[WALK])
ADJ_HERO = words("""little, small, young, tiny, brave, shy, curious, clever, cheerful, kind, gentle, lonely, quiet, silly, lazy, proud,
hungry, sleepy, grumpy, friendly, playful, careful, clumsy, happy, busy, polite, noisy, stubborn, thoughtful, lively""")
ADJ_OLD = words("old, wise, kind, grumpy, friendly, tall, quiet, gentle, clever, cheerful, round, tired, jolly, strange, poor, patient")

# ---- things -----------------------------------------------------------------------------------------------

COLOURS = words("red, blue, green, yellow, golden, silver, purple, orange, white, black, pink, brown, grey, striped, spotted")
ADJ_THING = words("little, big, shiny, old, new, pretty, tiny, bright, beautiful, wonderful, fine, special, lovely, strange")
CARRY = words("""kite, ball, drum, doll, whistle, puppet, toy boat, spinning top, marble, music box, teddy bear, hat, scarf, coat, cap,
mitten, ribbon, cloak, apron, lantern, basket, bucket, key, compass, map, spoon, bell, umbrella, hammer, brush, teapot, clock, mirror,
book, flute, fiddle, telescope, coin, ring, stone, feather, shell, crown, lamp, pillow, blanket, cup, jar, box, wagon, necklace,
button, bracelet, trumpet, notebook, pencil, fan, purse, bottle, boot, vase, picture, flag, candle, harp, medal, magnet, horn""")
AIRBORNE = words("kite, ball, balloon, hat, cap, scarf, paper plane, feather, ribbon, flag, toy boat, umbrella, shuttlecock, frisbee")
FRAGILE = words("""vase, cup, teapot, clock, mirror, lamp, lantern, music box, jar, bowl, picture, plate, fiddle, kite, doll,
toy boat, harp, telescope, drum, umbrella, pot, model ship, snow globe""")
FOOD = words("""apple, pear, cake, pie, bun, loaf of bread, cookie, pancake, carrot, cherry tart, pot of honey, piece of cheese, plum,
pumpkin, melon, muffin, sandwich, peach, bowl of soup, bag of nuts, basket of berries, jam tart, waffle, corn cake, bunch of grapes""")
ADJ_FOOD = words("big, warm, sweet, juicy, fresh, delicious, tasty, round, ripe, golden, huge, yummy, lovely")
DISHES = words("cake, pie, pot of soup, pudding, loaf of bread, plum tart, stew, pancake, pizza, salad, gingerbread house, apple crumble")
INGREDIENTS = words("""honey, butter, milk, sugar, salt, flour, cinnamon, cherries, apples, nuts, blueberries, eggs, cream, carrots,
raisins, lemons, mushrooms, pears, strawberries, plums, onions, chestnuts""")
MAGIC = words("wand, ring, stone, lamp, feather, hat, bell, mirror, flute, key, coin, pencil, cloak, brush, spoon, seed, shell, book")
PLANTS = words("""flower, sunflower, apple tree, rose, pumpkin, bean, carrot, cherry tree, tulip, strawberry plant, turnip, oak tree,
lemon tree, cabbage, daisy, melon, pear tree, lily""")
BUILDS = words("""raft, bridge, boat, tree house, cart, swing, bird house, sled, tent, wall, tower, hut, windmill, ladder, bench,
kite, rocking horse, fence, snow fort, little theatre""")

# ---- places -----------------------------------------------------------------------------------------------

# noun → how one is there, how one gets there
PLACES = {
    **{n: ("in", "into") for n in words("""forest, garden, meadow, valley, village, town, market, barn, cave, park, orchard, jungle,
        castle, woods, city, library, harbour, mill, kitchen, field, desert, swamp""")},
    **{n: ("at", "to") for n in words("""river, lake, pond, beach, lighthouse, bakery, windmill, school, waterfall, old bridge,
        crossroads, seashore, well, toy shop, station""")},
    **{n: ("on", "up") for n in words("hill, mountain, cliff")},
    **{n: ("on", "to") for n in words("island, playground, farm")},
}
ADJ_PLACE = words("small, quiet, old, sunny, big, little, windy, snowy, busy, lonely, misty, pretty, famous, beautiful, green, sleepy")
HOMES = words("""house, cottage, cabin, hut, castle, tower, tent, wagon, cave, farmhouse, boat, tree house, lighthouse, windmill,
hole, barn, mill, nest, palace, shed""")
ADJ_HOME = words("small, cosy, little, old, tiny, crooked, wooden, warm, round, tall, red, white, yellow, quiet, pretty, stone, messy")
NEAR = words("near, beside, behind, close to, not far from, at the edge of, next to, across from")

LISTS = {
    "weather": words("""sunny, rainy, windy, snowy, cold, warm, foggy, cloudy, bright, stormy, hot, misty, fine, frosty, quiet, lovely,
        chilly, grey, golden, beautiful"""),
    "daypart": words("morning, afternoon, day, evening, morning, day"),
    "later": ["The next [morning|day]", "Later that day", "That same day", "A few days later", "One day", "Some time later", "That evening"],
    "season": words("spring, summer, autumn, winter"),
    "when": ["One <weather> <daypart>", "One <daypart>", "One <weather> <daypart> in <season>", "One day", "On a <weather> <daypart>",
             "Early one <weather> morning", "Late one <weather> evening", "One <daypart> in <season>", "On the first day of <season>",
             "One <weather> day", "Then one <daypart>", "But one <weather> <daypart>", "On a <weather> <season> <daypart>"],
    "hobby": words("""sing, dance, paint, read books, count the stars, climb trees, tell jokes, play in the rain, bake bread,
        collect stones, look at the clouds, swim, draw pictures, tell stories, play the drum, explore, build towers, plant flowers,
        pick berries, sleep in the sun, whistle, play hide and seek, look for shells, help others, fix old things, eat pancakes,
        watch the birds, listen to music, run in the wind, chase leaves, dig holes, solve riddles, make soup, count things,
        learn new words, splash in puddles, roll down hills, ask questions, sit by the fire, fly kites, write letters, sail small boats,
        watch the sunset, make new friends, collect feathers, jump over puddles, play the flute, dream about far places"""),
    "doing": words("""reading a map, mending a net, eating a plum, resting in the sun, sweeping leaves, painting a fence, singing a song,
        drinking tea, counting coins, carrying a basket, watering flowers, looking for nuts, washing a hat, fixing a wheel,
        drawing in the sand, sitting on a log, picking apples, chopping wood, playing a small flute, knitting a sock, digging a hole,
        feeding the birds, writing a letter, stirring a pot of soup, folding a blanket, humming a tune, peeling an orange,
        hanging up the washing, building a wall, polishing a bell, looking at the clouds, having a nap, reading a thick book,
        pushing a cart, baking bread, catching butterflies, tying a rope, cleaning a window"""),
    "trait": words("""brave, kind, curious, clever, cheerful, gentle, patient, honest, quick, careful, friendly, strong, quiet, funny,
        polite, shy, busy, silly, helpful, hard-working, stubborn, proud, warm-hearted, thoughtful"""),
    "spotadj": words("old, tall, big, wide, dusty, broken, mossy, hollow, wooden, green, wet, round, little, fallen, dark, crooked, grey"),
    "spotnoun": words("""tree, bench, bush, rock, gate, wall, bridge, fence, log, cart, haystack, barrel, stump, well, hedge, ladder, tent,
        stone, table, box, basket, wheelbarrow, door, rowing boat"""),
    "spotin": words("""tall grass, attic, cellar, shed, pond, bushes, leaves, haystack, flower bed, mud, old boot, cupboard, snow, sand,
        hollow log, nest, wooden box, kitchen, ditch, vegetable patch"""),
    "spot": ["[under|behind|beside|near|under|behind] [the|a] <spotadj> <spotnoun>", "[under|behind|beside] the <spotnoun>",
             "in the <spotin>", "in the <spotin>"],
    "glad": words("happy, glad, cheerful, pleased, delighted, joyful, very happy, so happy, full of joy, as happy as could be, very glad"),
    "sad": words("sad, unhappy, upset, very sad, so sad, lonely and sad, worried, very upset, full of sorrow, heartbroken, gloomy"),
    "scared": words("afraid, scared, frightened, very scared, nervous, a little afraid, terrified, worried, so scared"),
    "softly": words("softly, quietly, kindly, gently, slowly, shyly, in a small voice, in a soft voice, with a sigh, sadly, at last"),
    "gladly": words("happily, with a big smile, cheerfully, with a laugh, proudly, loudly, at once, warmly, with shining eyes, merrily"),
    "said": words("said, said, said, answered, replied"),
    "soon": ["[Soon|Then|After a while|A little later|Before long|At last|In the end|Finally|Just then|After some time]"],
    "loved": words("loved, loved, liked, really loved, enjoyed nothing more than, always wanted"),
    "relative": words("grandmother, grandfather, mother, father, uncle, aunt, best friend, big sister, big brother, teacher"),
    "fact": ["the <spotadj> <spotnoun> was <weathered>", "the <season> wind was blowing", "the sun was shining", "the birds were singing",
             "the sky was [blue|grey|dark|pink|clear]", "the leaves were falling", "the stars were coming out", "the rain had stopped",
             "everyone was busy", "it was getting late", "the moon was [bright|round|high]", "the snow was [deep|soft]",
             "the air smelled of [flowers|rain|bread|smoke|apples]", "the road was [long|wet|dusty|empty]", "nobody was around"],
    "weathered": words("wet, warm, covered with leaves, shining in the sun, covered with snow, full of birds, still wet from the rain"),
    "noise": words("a knock, a squeak, a rumble, a bang, a crash, a strange song, a rustle, a long howl, a scratching sound, a soft cry, a thump, a tapping sound, a growl, a ringing sound"),
}
