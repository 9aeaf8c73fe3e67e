"""Classes of English words that are decided by their form: function words, names of the calendar, number words.

Source: the closed word classes of Quirk et al. (1985), A Comprehensive Grammar of the English Language.
"""

from __future__ import annotations

_CLASSES = {
    ("function", "article"): "a an the",
    ("function", "pronoun"): (
        "i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself "
        "we us our ours ourselves they them their theirs themselves this that these those who whom whose which what "
        "whoever whatever something anything nothing everything someone anyone everyone somebody anybody nobody "
        "everybody none"
    ),
    ("function", "preposition"): (
        "of in to for with on at by from as into about like through after over between out against during without "
        "before under around among within along across behind beyond toward towards upon onto above below beneath "
        "near off via per amid despite except inside outside throughout until till since"
    ),
    ("function", "conjunction"): "and or but nor so yet if because although though while whereas unless than whether",
    ("function", "auxiliary"): (
        "is are was were be been being am has have had having do does did can could will would shall should may might "
        "must"
    ),
    ("function", "adverb"): (
        "not no also there here then now when where why how just only very too more most less least well again once "
        "ever never always often still already up down back away all any some each every both either neither such "
        "other another much many few own same"
    ),
    ("calendar", "month"): "january february march april may june july august september october november december",
    ("calendar", "weekday"): "monday tuesday wednesday thursday friday saturday sunday",
    ("number", "cardinal"): (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million "
        "billion"
    ),
    ("number", "ordinal"): (
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
    ),
}

# The class of a word in small letters; a name of the calendar counts only if it is capitalised.
FUNCTION, CALENDAR, NUMBER = (
    {word: kind for (group, kind), words in _CLASSES.items() if group == name for word in words.split()}
    for name in ("function", "calendar", "number")
)
