"""The words that signs show by default: 256 common ones of three to six letters."""

_LIST = """
able acid acorn alley amber angel ankle apple april apron arch arrow atlas autumn bacon badge
baker bank barn basin beach bean bear bell berry bike bird blaze block boat bone book boot
bottle bowl box bread brick bridge broom brush bucket bull bus butter cabin cable cake camel
camp candle canoe carpet castle cat chalk cherry chess chin church circle circus clay cliff
clock cloud clown coal coast cobra coffee coin comet coral corn cotton couch cow crab crane
crown cup dairy dance deer desert desk dinner dock dog doll donkey door dove dragon drum duck
eagle earth echo edge egg elbow elf ember engine exit fable farm feast fence ferry fig film
finch fire fish flag flame flute fog forest fork fox frog fruit gallop garden gate ghost giant
ginger glove goat gold grape guitar hall hammer harbor hat hawk hazel helmet hill honey hook
horse hotel house ice index iron island ivory jacket jam jelly jewel jungle kayak kettle key
king kite knee knight ladder lake lamp lemon lily lion lizard maple market melon milk mirror
moon motor museum nest north novel oak ocean olive onion open opera orbit oven owl paint palace
panda park pearl pencil piano pilot pizza planet plum pond quartz queen quilt rabbit radio rain
river robot rocket rose ruby salt school shop silver snow sofa spoon stop summer sun taxi tea
tiger train tree tulip tunnel umbra van velvet violin walnut water wax whale wheel wind window
winter wolf yacht yard yellow yoga zebra zero zigzag zone zoo
"""

WORDS: tuple[str, ...] = tuple(_LIST.split())
