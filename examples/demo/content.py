"""Hand-written facts for the demo data: what is asked about, and what is true of it.

Each table is one topic. The grammar that turns a row into questions and answers is in `grammar.py`. Wrong answers are
taken from another row of the same table, so a row carries a *group* where two rows could answer each other's question:
a wrong value is only ever taken from a different group.
"""

# name: (food, kind of eater, home, kind of home, sound or None, young or None)
ANIMALS = {
    "cow": ("grass", "plants", "on a farm", "farm", "moo", "calf"),
    "horse": ("hay", "plants", "in a stable", "farm", "neigh", "foal"),
    "sheep": ("grass", "plants", "on a farm", "farm", "baa", "lamb"),
    "goat": ("leaves", "plants", "on a farm", "farm", None, "kid"),
    "pig": ("roots", "both", "in a pen", "farm", "grunt", "piglet"),
    "hen": ("corn", "both", "in a barn", "farm", "cluck", "chick"),
    "cat": ("meat", "animals", "in a house", "farm", "meow", "kitten"),
    "dog": ("meat", "animals", "in a house", "farm", "bark", "puppy"),
    "duck": ("seeds", "both", "on a pond", "water", "quack", "duckling"),
    "swan": ("water plants", "plants", "on a lake", "water", None, "cygnet"),
    "frog": ("flies", "animals", "in a pond", "water", "croak", "tadpole"),
    "whale": ("tiny sea animals", "animals", "in the sea", "water", "song", "calf"),
    "shark": ("fish", "animals", "in the sea", "water", None, "pup"),
    "penguin": ("fish", "animals", "on the ice", "ice", None, "chick"),
    "owl": ("mice", "animals", "in a tree", "wood", "hoot", "owlet"),
    "fox": ("mice", "animals", "in a den", "wood", None, "cub"),
    "wolf": ("meat", "animals", "in the forest", "wood", "howl", "pup"),
    "squirrel": ("nuts", "plants", "in a tree", "wood", None, None),
    "bear": ("berries", "both", "in the forest", "wood", "growl", "cub"),
    "rabbit": ("clover", "plants", "in a burrow", "wood", None, None),
    "bee": ("nectar", "plants", "in a hive", "hive", "buzz", None),
    "spider": ("flies", "animals", "in a web", "web", None, None),
    "lion": ("meat", "animals", "on the plains", "hot", "roar", "cub"),
    "elephant": ("leaves", "plants", "on the plains", "hot", None, "calf"),
    "camel": ("dry plants", "plants", "in the desert", "hot", None, "calf"),
    "monkey": ("fruit", "both", "in the jungle", "hot", None, None),
    "snake": ("mice", "animals", "in the desert", "hot", "hiss", None),
    "panda": ("bamboo", "plants", "in the mountains", "high", None, "cub"),
}

# What an eater of each kind does not eat, and where an animal of each kind of home does not live.
NOT_FOOD = {
    "plants": ["meat", "fish", "mice", "flies"],
    "animals": ["hay", "nuts", "leaves", "clover"],
    "both": ["hay", "bamboo"],
}
NOT_HOME = {
    "farm": ["on a lake", "in the sea", "on the ice", "in a web", "in a hive"],
    "water": ["in the desert", "in a hive", "in a web"],
    "ice": ["in the desert", "in the jungle", "in a tree", "in a stable"],
    "wood": ["in the sea", "on the ice", "in a hive", "in a web", "in a pond"],
    "hive": ["in the sea", "on the ice", "on a lake"],
    "web": ["in the sea", "on the ice", "on a lake"],
    "hot": ["in the sea", "on the ice", "in a hive", "in a web"],
    "high": ["in the sea", "on the ice", "in a hive", "in the desert"],
}

# Sounds, and names of young, that could pass for each other.
ALIKE = [
    {"bark", "growl", "howl", "roar", "hiss", "grunt", "meow"},
    {"pup", "puppy", "cub"},
    {"chick", "owlet", "duckling", "cygnet"},
]

# thing: colour
COLOURS = {
    "a clear sky": "blue", "the sea": "blue", "a blueberry": "blue",
    "grass": "green", "moss": "green", "a cucumber": "green", "a lime": "green",
    "snow": "white", "milk": "white", "salt": "white", "flour": "white",
    "coal": "black", "a crow": "black", "the sky at night": "black",
    "a lemon": "yellow", "a banana": "yellow", "corn": "yellow", "butter": "yellow",
    "blood": "red", "a cherry": "red", "a tomato": "red", "a strawberry": "red",
    "a carrot": "orange", "a pumpkin": "orange",
    "chocolate": "brown", "mud": "brown", "toast": "brown",
    "an elephant": "grey", "ash": "grey", "a dolphin": "grey",
    "a flamingo": "pink", "bubble gum": "pink",
    "a violet": "purple", "lavender": "purple",
}

# (word, opposite, example, group)
OPPOSITES = [
    ("hot", "cold", "Fire is hot and ice is cold.", "feel"),
    ("wet", "dry", "The sea is wet and the desert is dry.", "feel"),
    ("sweet", "sour", "Honey is sweet and a lemon is sour.", "feel"),
    ("big", "small", "An elephant is big and a mouse is small.", "size"),
    ("long", "short", "A river is long and a step is short.", "size"),
    ("high", "low", "A mountain is high and a valley is low.", "size"),
    ("thick", "thin", "A wall is thick and paper is thin.", "size"),
    ("strong", "weak", "A bear is strong and a chick is weak.", "size"),
    ("soft", "hard", "Wool is soft and stone is hard.", "size"),
    ("loud", "quiet", "A lion is loud and a mouse is quiet.", "size"),
    ("fast", "slow", "A horse is fast and a snail is slow.", "time"),
    ("day", "night", "We work by day and sleep by night.", "time"),
    ("light", "dark", "The day is light and the night is dark.", "time"),
    ("early", "late", "Breakfast is early and supper is late.", "time"),
    ("first", "last", "January is first and December is last.", "time"),
    ("clean", "dirty", "Soap is clean and mud is dirty.", "state"),
    ("old", "new", "An old coat is worn and a new coat is clean.", "state"),
    ("full", "empty", "A full cup is heavy and an empty cup is not.", "state"),
    ("open", "closed", "A shop is open by day and closed by night.", "state"),
    ("happy", "sad", "A gift makes us happy and a loss makes us sad.", "mood"),
    ("rich", "poor", "A king is rich and a beggar is poor.", "mood"),
    ("up", "down", "Smoke goes up and rain comes down.", "place"),
    ("near", "far", "The garden is near and the moon is far.", "place"),
    ("north", "south", "On a map, north is at the top and south is below.", "place"),
]

NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
]

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]

# (whole, part, how many, detail)
PARTS = [
    ("a triangle", "sides", "three", "It has three corners too."),
    ("a square", "sides", "four", "It has four corners too."),
    ("a pentagon", "sides", "five", "It has five corners too."),
    ("a hexagon", "sides", "six", "It has six corners too."),
    ("an octagon", "sides", "eight", "It has eight corners too."),
    ("a dog", "legs", "four", "That is two on each side."),
    ("a horse", "legs", "four", "That is two on each side."),
    ("an elephant", "legs", "four", "That is two on each side."),
    ("a spider", "legs", "eight", "That is four on each side."),
    ("a bee", "legs", "six", "That is three on each side."),
    ("an ant", "legs", "six", "That is three on each side."),
    ("a hen", "legs", "two", "That is one on each side."),
    ("an owl", "legs", "two", "That is one on each side."),
    ("a car", "wheels", "four", "That is two on each side."),
    ("a bicycle", "wheels", "two", "One is in front of the other."),
]

# (tool, job, advice, group)
TOOLS = [
    ("a hammer", "drive in a nail", "Mind your fingers.", "hit"),
    ("a saw", "cut wood", "Keep the wood still.", "cut"),
    ("a knife", "cut bread", "Cut away from your hand.", "cut"),
    ("a broom", "sweep the floor", "Start in the corners.", "yard"),
    ("a brush", "paint a wall", "Wash it with water after use.", "yard"),
    ("a rake", "gather leaves", "It works best when they are dry.", "yard"),
    ("a comb", "tidy your hair", "Start at the ends.", "yard"),
    ("a needle", "sew cloth", "You need a thread too.", "sew"),
    ("a ladder", "reach high places", "Ask a friend to hold it.", "climb"),
    ("an umbrella", "stay dry in the rain", "Close it when the sun comes out.", "cloth"),
    ("a towel", "dry your hands", "Hang it up after use.", "cloth"),
    ("a key", "open a lock", "Keep it in your pocket.", "key"),
    ("a clock", "tell the time", "The short hand shows the hour.", "clock"),
    ("a pen", "write a letter", "Close it after use.", "write"),
    ("a ruler", "measure a line", "Start at zero.", "write"),
    ("a map", "find the way", "North is at the top.", "light"),
    ("a kettle", "boil water", "Mind the hot steam.", "kitchen"),
    ("a bucket", "carry water", "Leave some room at the top.", "yard"),
    ("a lamp", "light a room", "Turn it off at night.", "light"),
    ("a spade", "dig a hole", "Push it in with your foot.", "yard"),
    ("a net", "catch fish", "Check it for holes first.", "yard"),
    ("a rope", "tie up a boat", "Make a tight knot.", "climb"),
    ("a fridge", "keep food cold", "Close the door well.", "kitchen"),
    ("an oven", "bake bread", "Let it get hot first.", "kitchen"),
]

# (dish, first step, second step, advice)
DISHES = [
    ("tea", "pour hot water on the leaves", "wait three minutes", "Add milk or lemon if you like."),
    ("toast", "slice some bread", "brown it on both sides", "Serve it with butter."),
    ("porridge", "cook oats in milk", "stir until it is thick", "Add honey if you like."),
    ("a boiled egg", "put an egg in boiling water", "wait six minutes", "Add salt if you like."),
    ("soup", "cut some carrots and onions", "boil them in water until soft", "Serve it with bread."),
    ("a salad", "wash and cut some green leaves", "add oil and salt", "Serve it cold."),
    ("pancakes", "mix eggs, milk and flour", "fry thin rounds in butter", "Serve them with honey."),
    ("lemonade", "mix lemon juice with cold water", "add sugar", "Serve it with ice."),
    ("popcorn", "heat dry corn in a closed pot", "wait until it stops popping", "Add salt if you like."),
    ("mashed potatoes", "boil potatoes until soft", "crush them with butter", "Add salt if you like."),
    ("a sandwich", "slice some bread", "put cheese and tomato in between", "Serve it cold."),
    ("hot chocolate", "heat some milk", "stir in chocolate until it melts", "Add sugar if you like."),
]

# (when, first advice, second advice, reason, rows whose advice does not fit)
WEATHER = [
    ("it rains", "take an umbrella", "wear boots", "Then you stay dry.", (2, 7)),
    ("it snows", "wear a warm coat", "put on gloves", "Then you stay warm.", (2, 7)),
    ("it is hot", "drink a lot of water", "stay in the shade", "Then you stay cool.", (1, 4)),
    ("it is windy", "close the windows", "hold on to your hat", "Then you lose nothing.", (2,)),
    ("it is foggy", "drive slowly", "turn on the lights", "Then others can see you.", (2, 7)),
    ("there is ice on the road", "take small steps", "leave the car at home", "Then you do not slip.", (2, 7)),
    ("a storm comes", "go inside", "keep away from trees", "Then you are safe.", (2, 7)),
    ("the sun is strong", "wear a hat", "cover your arms", "Then the sun does not burn you.", (1, 4)),
]

# (job, what one does, place, kind of work)
JOBS = [
    ("baker", "bakes bread", "in a bakery", "food"),
    ("cook", "makes meals", "in a kitchen", "food"),
    ("farmer", "grows food", "on a farm", "land"),
    ("gardener", "looks after plants", "in a garden", "land"),
    ("teacher", "teaches children", "in a school", "school"),
    ("librarian", "lends books", "in a library", "school"),
    ("doctor", "heals sick people", "in a hospital", "hospital"),
    ("nurse", "cares for sick people", "in a hospital", "hospital"),
    ("pilot", "flies planes", "in the air", "air"),
    ("sailor", "sails ships", "at sea", "sea"),
    ("fisher", "catches fish", "at sea", "sea"),
    ("carpenter", "makes things of wood", "in a workshop", "work"),
    ("potter", "makes pots of clay", "in a workshop", "work"),
    ("tailor", "sews clothes", "in a shop", "work"),
    ("barber", "cuts hair", "in a shop", "work"),
    ("driver", "drives a bus", "on the road", "road"),
    ("singer", "sings songs", "on a stage", "stage"),
    ("dancer", "dances to music", "on a stage", "stage"),
    ("writer", "writes books", "at a desk", "desk"),
    ("miner", "digs for coal", "in a mine", "mine"),
]

# (thing, made of, group, detail)
MATERIALS = [
    ("bread", "flour", "grain", "It is baked in an oven."),
    ("flour", "wheat", "grain", "The wheat is ground in a mill."),
    ("cheese", "milk", "milk", "It grows hard with time."),
    ("butter", "cream", "milk", "The cream is shaken until it is thick."),
    ("paper", "wood", "wood", "The wood is crushed and pressed thin."),
    ("glass", "sand", "earth", "The sand is melted in a fire."),
    ("a brick", "clay", "earth", "The clay is baked until it is hard."),
    ("a candle", "wax", "wax", "A thread runs in the middle."),
    ("wool", "sheep hair", "cloth", "The hair is cut in spring."),
    ("a nail", "iron", "metal", "The iron is cut from a long wire."),
    ("a coin", "metal", "metal", "The metal is pressed flat."),
    ("a tyre", "rubber", "rubber", "It is filled with air."),
    ("jam", "fruit and sugar", "sweet", "They are boiled until thick."),
    ("honey", "nectar", "sweet", "Bees make it in the hive."),
    ("wine", "grapes", "sweet", "The grapes are crushed first."),
]

# Where nobody of another job works.
NOT_WORKPLACE = ["in the air", "in a mine", "on a stage", "in a bakery"]

# (thing, place, group, reason)
STORES = [
    ("milk", "in the fridge", "cold", "It stays cold there."),
    ("ice cream", "in the freezer", "cold", "It stays hard there."),
    ("bread", "in a bread box", "cold", "It stays soft there."),
    ("knives", "in a kitchen drawer", "kitchen", "They are safe there."),
    ("books", "on a shelf", "room", "They stay clean there."),
    ("coats", "on a hook", "room", "They stay dry there."),
    ("flowers", "in a vase", "vase", "They have water there."),
    ("money", "in a bank", "bank", "It is safe there."),
    ("a car", "in a garage", "garage", "It stays dry there."),
    ("tools", "in a shed", "garage", "They stay dry there."),
    ("toys", "in a big box", "room", "They are easy to find there."),
    ("shoes", "by the door", "door", "They are easy to find there."),
]

# Where nobody keeps a thing of another group.
NOT_STORE = ["in the freezer", "in a vase", "in a bank", "in a bread box"]

# (prompts, answer, short answer, detail)
SMALL_TALK = [
    (["Hello!", "Hi there!", "Hello, my friend.", "Hi, are you there?"],
     "Hello, I am here to help.", "Hello.", "What would you like to know?"),
    (["How are you?", "How are you today?", "Are you well?", "Hi, how are you?"],
     "I am well, and I hope you are too.", "Well.", "What would you like to know?"),
    (["Who are you?", "What are you?", "Tell me who you are.", "Do you know who you are?"],
     "I am a very small language model.", "A model.", "I was made to answer short questions."),
    (["What can you do?", "How can you help me?", "Tell me what you can do.", "Do you know how to help me?"],
     "I can answer short questions.", "Answer questions.", "Ask me about animals, food, tools or numbers."),
    (["Thank you for your help.", "Thank you!", "Many thanks.", "Thank you, my friend."],
     "It was my pleasure.", "Fine.", "Ask me again if you need me."),
    (["Good night!", "I am going to bed.", "Good night, my friend.", "It is late and I am going to bed."],
     "Good night and sleep well.", "Night.", "Tomorrow is a new day."),
]

# Sentences that carry a quality of their own, whatever the question.
COURTESY_BEFORE = ["Good question!", "Of course!", "Sure, I can help.", "Thank you for asking."]
COURTESY_AFTER = ["I hope this helps.", "Have a nice day!", "Ask me any time.", "You are welcome."]
RUDE = [
    "What a silly question.", "Everyone knows that.", "I have no time for this.", "Look it up yourself.",
    "Stop asking me.", "Do not bother me.",
]
VAGUE = [
    "That depends on many things.", "It is hard to say.", "Some say one thing and some say another.",
    "I am not sure.", "There may be an answer somewhere.", "Who can really know?",
]
