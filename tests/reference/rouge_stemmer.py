"""Stems by NLTK, and ROUGE with stemming by rouge-score, for `tests/eval_rouge_stemmer.rs`.

    pip install rouge-score==0.1.2 nltk==3.10.4
    python rouge_stemmer.py DATA ../fixtures/eval/text/rouge_stemmer.json

DATA is a folder with `wikitext-2` and `tiny-shakespeare`. Their words, at most four of each ending of three
letters, are written in alphabetical order; the texts beside those of `text_metrics.py` are drawn from words with
equal stems.
"""
import collections, json, pathlib, random, re, sys
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from text_metrics import ENGLISH, SUMMARIES

FILES = ["wikitext-2/wiki.valid.tokens.txt", "wikitext-2/wiki.test.tokens.txt", "tiny-shakespeare/input.txt"]
# Words for rules that the texts do not use, irregular ones, and such that are no English, among them suffixes
# after a single letter.
UNUSUAL = """analogously archaeology bowdlerize by callousness canning cannings conformably died dies dying enjoy
exceed feudalism fly flies formality geology hopefulness howe inning innings lie lied lying news nationally outing
outings owing oxen philology playfully proceed radically rationally sensationally sensibility skies sky spied spies
tional benci bentli beli bousli bization balism bfulness bousness baliti biviti bfulli bicate balize biciti bical bful
bable relational vietnamization sensitivity replacement element hesitancy operator decisiveness defensible visible
formative native sizer station civility conditional digitizer agency succeed theology thoughtfully ties tied toy
triplicate tying usefully using aped aching vilely yoyo yyyy yyyyying syzygy sesses ssss ness iveness alli balli ing
eed ied ies xies xied logi alogi bed bees bli abli ion sion asion 1990s 3rd 747 2x4s b52s a1ing cafés naïvely élèves
façades 天气很好 über ΟΔΟΣ İS Running FLIES""".split()


def stems(folder, rng):
    stemmer = PorterStemmer()
    found = {word.lower() for file in FILES for word in re.findall(r"[A-Za-z]+", (folder / file).read_text("utf-8"))}
    ending = collections.Counter()
    chosen = set(UNUSUAL)
    for word in rng.sample(sorted(found), len(found)):
        ending[word[-3:]] += 1
        if ending[word[-3:]] <= 4:
            chosen.add(word)
    return {word: stemmer.stem(word) for word in sorted(chosen)}


def inflected(stems, rng):
    """Texts of words, and references in which words with the same stem or others stand for them."""
    alike = collections.defaultdict(list)
    for word, stem in stems.items():
        if re.fullmatch("[a-z]+", word):
            alike[stem].append(word)
    alike = [words for words in alike.values() if len(words) > 1]
    other = [words[0] for words in alike]
    for _ in range(40):
        groups = rng.choices(alike, k=rng.randint(4, 20))
        text = lambda: " ".join(rng.choice(g) if rng.random() < 0.8 else rng.choice(other) for g in groups if rng.random() < 0.9)
        lines = lambda: "\n".join(text() for _ in range(rng.randint(1, 3)))
        yield lines(), [lines() for _ in range(rng.randint(1, 3))]


def scores(corpus):
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=True)
    for hypothesis, references in corpus:
        found = scorer.score_multi(references, hypothesis)
        yield dict(hypothesis=hypothesis, references=references, scores={k: [round(x, 12) for x in found[k]] for k in kinds})


if __name__ == "__main__":
    rng = random.Random(0)
    stems = stems(pathlib.Path(sys.argv[1]), rng)
    corpus = ENGLISH + SUMMARIES + list(inflected(stems, rng))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(dict(stems=stems, texts=list(scores(corpus))), file, ensure_ascii=False, separators=(",", ":"))
