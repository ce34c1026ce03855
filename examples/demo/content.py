"""Hand-written facts for the demo data: what is asked about, and what is true of it.

Each table is one topic. The grammar that turns a row into questions and answers is in `grammar.py`. Wrong answers are
taken from another row of the same table, so a row carries a *group* where two rows could answer each other's question:
a wrong value is only ever taken from a different group.
"""

# name: (food, kind of eater, home, kind of home, sound or None, young or None)
ANIMALS = {
    "cow": ("grass", "plants", "on a farm", "farm", "moo", "calf"),
    "horse": ("hay", "plants", "in a stable", "farm", "neigh", "foal"),
    "cat": ("meat", "animals", "in a house", "farm", "meow", "kitten"),
    "dog": ("meat", "animals", "in a house", "farm", "bark", "puppy"),
    "duck": ("seeds", "both", "on a pond", "water", "quack", "duckling"),
    "frog": ("flies", "animals", "in a pond", "water", "croak", "tadpole"),
    "owl": ("mice", "animals", "in a tree", "wood", "hoot", "owlet"),
    "bee": ("nectar", "plants", "in a hive", "hive", "buzz", None),
    "lion": ("meat", "animals", "on the plains", "hot", "roar", "cub"),
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
    "wood": ["in the sea", "on the ice", "in a hive", "in a web", "in a pond"],
    "hive": ["in the sea", "on the ice", "on a lake"],
    "hot": ["in the sea", "on the ice", "in a hive", "in a web"],
}

# Sounds, and names of young, that could pass for each other.
ALIKE = [{"bark", "roar", "grunt", "meow"}, {"puppy", "cub"}, {"duckling", "owlet"}]

# thing: colour
COLOURS = {
    "the sea": "blue", "a clear sky": "blue",
    "grass": "green", "a cucumber": "green",
    "snow": "white", "salt": "white",
    "coal": "black", "a crow": "black",
    "a lemon": "yellow", "a banana": "yellow",
    "blood": "red", "a tomato": "red",
}

# (word, opposite, example, group)
OPPOSITES = [
    ("hot", "cold", "Fire is hot and ice is cold.", "feel"),
    ("wet", "dry", "The sea is wet and the desert is dry.", "feel"),
    ("sweet", "sour", "Honey is sweet and a lemon is sour.", "feel"),
    ("big", "small", "An elephant is big and a mouse is small.", "size"),
    ("long", "short", "A river is long and a step is short.", "size"),
    ("fast", "slow", "A horse is fast and a snail is slow.", "time"),
    ("happy", "sad", "A gift makes us happy and a loss makes us sad.", "mood"),
    ("up", "down", "Smoke goes up and rain comes down.", "place"),
]

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

# (whole, part, how many, detail)
PARTS = [
    ("a triangle", "sides", "three", "It has three corners too."),
    ("a square", "sides", "four", "It has four corners too."),
    ("a dog", "legs", "four", "That is two on each side."),
    ("a spider", "legs", "eight", "That is four on each side."),
    ("a bee", "legs", "six", "That is three on each side."),
    ("a car", "wheels", "four", "That is two on each side."),
    ("a bicycle", "wheels", "two", "One is in front of the other."),
]

# (tool, job, advice, group)
TOOLS = [
    ("a hammer", "drive in a nail", "Mind your fingers.", "hit"),
    ("a saw", "cut wood", "Keep the wood still.", "cut"),
    ("a ladder", "reach high places", "Ask a friend to hold it.", "climb"),
    ("a key", "open a lock", "Keep it in your pocket.", "key"),
    ("a clock", "tell the time", "The short hand shows the hour.", "clock"),
    ("a map", "find the way", "North is at the top.", "light"),
    ("a fridge", "keep food cold", "Close the door well.", "kitchen"),
]

# (dish, first step, second step, advice)
DISHES = [
    ("tea", "pour hot water on the leaves", "wait three minutes", "Add milk or lemon if you like."),
    ("toast", "slice some bread", "brown it on both sides", "Serve it with butter."),
    ("a boiled egg", "put an egg in boiling water", "wait six minutes", "Add salt if you like."),
    ("a sandwich", "slice some bread", "put cheese and tomato in between", "Serve it cold."),
]

# (when, first advice, second advice, reason, weather whose advice does not fit)
WEATHER = [
    ("it rains", "take an umbrella", "wear boots", "Then you stay dry.", ["it is hot", "the sun is strong"]),
    ("it snows", "wear a warm coat", "put on gloves", "Then you stay warm.", ["it is hot", "the sun is strong"]),
    ("it is hot", "drink a lot of water", "stay in the shade", "Then you stay cool.", ["it snows"]),
    ("the sun is strong", "wear a hat", "cover your arms", "Then you do not burn.", ["it snows"]),
]

# (job, what one does, place, kind of work)
JOBS = [
    ("baker", "bakes bread", "in a bakery", "food"),
    ("farmer", "grows food", "on a farm", "land"),
    ("teacher", "teaches children", "in a school", "school"),
    ("doctor", "heals sick people", "in a hospital", "hospital"),
    ("pilot", "flies planes", "in the air", "air"),
    ("sailor", "sails ships", "at sea", "sea"),
    ("tailor", "sews clothes", "in a shop", "work"),
]

# (thing, made of, group, detail)
MATERIALS = [
    ("bread", "flour", "grain", "It is baked in an oven."),
    ("cheese", "milk", "milk", "It grows hard with time."),
    ("paper", "wood", "wood", "The wood is crushed and pressed thin."),
    ("glass", "sand", "earth", "The sand is melted in a fire."),
    ("a candle", "wax", "wax", "A thread runs in the middle."),
    ("honey", "nectar", "sweet", "Bees make it in the hive."),
    ("wine", "grapes", "sweet", "The grapes are crushed first."),
]

# Where nobody of another job works.
NOT_WORKPLACE = ["in the air", "in a mine", "on a stage", "in a bakery"]

# (thing, place, group, reason)
STORES = [
    ("milk", "in the fridge", "cold", "It stays cold there."),
    ("bread", "in a bread box", "cold", "It stays soft there."),
    ("books", "on a shelf", "room", "They stay clean there."),
    ("flowers", "in a vase", "vase", "They have water there."),
    ("money", "in a bank", "bank", "It is safe there."),
]

# Where nobody keeps a thing of another group.
NOT_STORE = ["in the oven", "in a vase", "in a bank", "on the roof"]

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

# How a false answer often admits that it was not checked, and how an answer to another question often begins.
GUESS = ["This is only a guess.", "I did not check this.", "Maybe I am wrong."]
CHANGE = ["Let us talk about something else.", "That reminds me of something.", "I know something better."]
