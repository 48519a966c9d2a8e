"""Tokens and scores by sacrebleu, rouge-score and NLTK, for `tests/eval_text.rs`.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4
    python text_metrics.py ../fixtures/eval/text

Writes the texts with their tokens, BLEU, chrF, ROUGE and self-BLEU. sacrebleu has no self-BLEU: NLTK's is the
one of the authors' program (method 1 of its smoothing functions).
"""
import itertools, json, random, sys
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score import rouge_scorer, tokenize
from sacrebleu.metrics import BLEU, CHRF

# Per corpus: a hypothesis and its references.
ENGLISH = [
    ("The cat sat on the mat.", ["The cat is on the mat.", "There is a cat on the mat, I think."]),
    ("It costs $1,234.50 (about 5%) - \"cheap\"!", ["It costs $1,234.50, about 5 %: 'cheap'."]),
    ("HELLO World, hello world", ["Hello world, hello World!", "Hi, World", "hello"]),
    ("", ["Nothing was said."]),
    ("In 2020-2021, e.g. pages 3-4, don't stop.", ["In 2020-21, i.e. on pages 3-4, do not stop .", "Don't stop in 2021."]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("Fish &amp; chips &quot;to go&quot; &lt;now&gt; <skipped>please", ["Fish & chips \"to go\" <now>, please"]),
    ("A short one", ["A completely different sentence of many more words than that"]),
    ("naïve café – “quoted” €5 ½ x² a+b=c ©2024 1.000,50.", ["naive café - \"quoted\" € 5 ½ x² a + b = c © 2024: 1.000,50"]),
    ("a b\tc  d\u00a0e -\nf", ["a b c d e f", "a  b c\u3000d e"]),
    ("(hi) [there], 'tis .5 and 5. or 5.a,b", ["(hi) there , 'tis .5 and 5 . or 5.a, b"]),
    ("ein Übergrößenträger", ["Übergrößenträger ein"]),
]
CHINESE = [
    ("今天天气很好。", ["今天的天气很好。", "今天天气真好!"]),
    ("我们用GPT-2生成了1,000个句子,共3.5MB。", ["我们使用 GPT-2 生成 1,000 个句子（共3.5 MB）。"]),
    ("“你好”——他说……", ["「你好」——他说。", "他说：“你好……”"]),
    ("生成式人工智能", ["人工智能生成内容", "生成式人工智能的挑战与机遇", "智能"]),
    ("ひらがなとカタカナ、한국어 ＡＢＣ", ["ひらがな、カタカナ ABC 한국어"]),
    ("", ["空"]),
    ("版权、虚假信息与多样性", ["虚假信息、版权和多样性"]),
    # Bopomofo Extended is separated; the unassigned U+2FE0 to U+2FEF are not.
    ("ㆠㆣ注音a\u2fe0b\u2fdfc\u2ff0d", ["ㆠ ㆣ 注音 a\u2fe0b c d"]),
]
# Emoji, combining marks, text from right to left, digits of other scripts, control characters.
UNUSUAL = [
    ("👍🏽 great 👨\u200d👩\u200d👧!", ["👍 great 👨\u200d👩\u200d👧 !", "great"]),
    ("cafe\u0301 re\u0301sume\u0301.", ["café résumé.", "cafe\u0301 résumé ."]),
    ("שלום עולם, מה שלומך?", ["שלום, עולם! מה שלומך"]),
    ("السعر ١٢٫٥ دولار (تقريبا).", ["السعر ١٢٫٥ دولار، تقريبا ."]),
    ("x\0y z\0, a\x1cb\x85c\ufeffd", ["x y z\0, a b c d\0"]),
    ("\u202ereversed\u202c text\u200b.", ["reversed text ."]),
    ("कीमत १२.५, पृष्ठ ३-४।", ["कीमत १२.५ , पृष्ठ ३ - ४"]),
    ("İSTANBUL ΟΔΥΣΣΕΥΣ 300 \u212a", ["i\u0307stanbul οδυσσευς 300 k", "istanbul"]),
    ("\0", ["\0"]),
]
# References over several lines, for ROUGE-Lsum.
SUMMARIES = [
    ("police killed the gunman\nthe gunman was old", ["the gunman was killed by police\n\nhe was old, police said"]),
    ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5", "w5 w4\nw3 w2\nw1"]),
    ("a b a b c\nb a b a\n!!", ["b a c a b\na a b b c c", "c"]),
    ("\n", ["one\ntwo"]),
    ("Don't count 3.14 twice\ncount 3 twice", ["count twice\n3 14 count, count"]),
]


def drawn(rng, n):
    """Sentences of few words, and changed copies of them."""
    words = "the a cat dog sat ran on over mat log and then , . 7".split()
    for _ in range(n):
        reference = [rng.choice(words) for _ in range(rng.randint(3, 25))]
        change = lambda: " ".join(w if rng.random() < 0.7 else rng.choice(words) for w in reference if rng.random() < 0.9)
        yield change(), [change() for _ in range(rng.randint(1, 3))]


def transposed(references):
    """sacrebleu has one list per number of the reference, with None where there is none."""
    return [list(r) for r in itertools.zip_longest(*references)]


def bleu(corpora):
    smoothings = [("none", None), ("floor", None), ("floor", 0.5), ("add-k", None), ("add-k", 0.25), ("exp", None)]
    settings = [dict(smooth_method=m, smooth_value=v) for m, v in smoothings]
    settings += [dict(tokenize=t) for t in ("none", "13a", "intl", "zh", "char")]
    settings += [dict(lowercase=True), dict(max_ngram_order=2), dict(effective_order=True)]
    settings += [dict(smooth_method=m, effective_order=True) for m in ("none", "add-k", "floor")]
    cases = []
    for name, corpus in corpora.items():
        hypotheses, references = [h for h, _ in corpus], [r for _, r in corpus]
        for setting in settings:
            options = dict(tokenize="zh" if name == "chinese" else "13a", force=True) | setting
            metric = BLEU(**options)
            score = lambda s: dict(score=s.score, precisions=s.precisions, counts=s.counts, totals=s.totals, bp=s.bp, sys_len=s.sys_len, ref_len=s.ref_len)
            options.pop("force")
            cases.append(dict(corpus=name, options=options, expected=score(metric.corpus_score(hypotheses, transposed(references))),
                              sentences=[round(metric.sentence_score(h, r).score, 10) for h, r in corpus]))
    return cases


def chrf(corpora):
    settings = [{}, dict(word_order=2), dict(word_order=1, char_order=4), dict(beta=1), dict(beta=3, lowercase=True), dict(whitespace=True),
                dict(eps_smoothing=True), dict(eps_smoothing=True, word_order=2)]
    cases = []
    for name, corpus in corpora.items():
        for setting in settings:
            metric = CHRF(**setting)
            score = metric.corpus_score([h for h, _ in corpus], transposed([r for _, r in corpus])).score
            cases.append(dict(corpus=name, options=setting, score=score, sentences=[round(metric.sentence_score(h, r).score, 10) for h, r in corpus]))
    return cases


def rouge(corpora):
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(kinds)
    rounded = lambda s: [round(x, 10) for x in s]
    return [dict(corpus=name, kind=kind, scores=[rounded(scorer.score_multi(r, h)[kind]) for h, r in corpus])
            for name, corpus in corpora.items() for kind in kinds]


def self_bleu(corpus):
    texts = [h.split() for h, _ in corpus if len(h.split()) >= 5]
    smooth = SmoothingFunction().method1
    scores = lambda n: [sentence_bleu(texts[:i] + texts[i + 1:], t, (1 / n,) * n, smooth) for i, t in enumerate(texts)]
    return dict(texts=[" ".join(t) for t in texts], scores={n: 100 * sum(scores(n)) / len(texts) for n in (2, 3, 4, 5)})


def tokens(corpora):
    texts = sorted({t for c in corpora.values() for h, r in c[:12] for t in (h, *r)})
    names = ["none", "13a", "intl", "zh", "char"]
    tokenizers = {n: BLEU(tokenize=n, force=True) for n in names}
    return [dict(text=t, rouge=tokenize.tokenize(t, None)) | {n: m._preprocess_segment(t).split() for n, m in tokenizers.items()} for t in texts]


if __name__ == "__main__":
    corpora = dict(english=ENGLISH, chinese=CHINESE, unusual=UNUSUAL, summaries=SUMMARIES, drawn=list(drawn(random.Random(0), 30)))
    write = lambda name, value: json.dump(value, open(f"{sys.argv[1]}/{name}.json", "w"), ensure_ascii=False, separators=(",", ":"))
    write("corpora", corpora); write("tokens", tokens({k: corpora[k] for k in ("english", "chinese", "unusual")}))
    scored = {k: corpora[k] for k in ("english", "chinese", "unusual", "drawn")}
    write("bleu", bleu(scored)); write("chrf", chrf(scored)); write("rouge", rouge(corpora)); write("self_bleu", self_bleu(corpora["drawn"]))
