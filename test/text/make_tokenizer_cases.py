"""Writes tokenizer-cases.json: texts, their ids, and what these decode to, by Python's tokenizers, for many kinds of tokenizer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.3
    /tmp/venv/bin/python test/text/make_tokenizer_cases.py [texts of each kind, 6] [texts of each model in ../shared, 120]

With larger numbers it tries more: nothing else changes.
"""
import json
import os
import random
import sys

import tokenizers
from tokenizers import Tokenizer

here = os.path.dirname(os.path.abspath(__file__))
shared = os.path.join(here, '../../../shared/models')
each, of_models = [int(n) for n in (sys.argv[1:] + ['6', '120'][len(sys.argv) - 1:])]
random.seed(7)

spaces = [' ', '  ', '\t', '\n', '\r\n', '\n\n', '\n \n', '\u00a0', '\u0085', '\ufeff', '\u2028', '\u200b', '\u3000', '\x0b', '\x1f']
letters = ['a', 'b', 'ab', 'A', 'Ab', 'e\u0301', 'é', 'ß', 'İ', 'ΑΣ', 'ς', 'ﬁ', 'ǆ', '漢', '漢字', '字', '한', 'العربية', 'हिन्दी', '\u0301', '\u200d']
digits = ['1', '12', '345', '½', '²', 'Ⅷ', '٣', '৪', '１']
others = ['!', '?!', '...', '--', '_', '«', '。', '$', '$&', '+', '^', '`', '~', '🙂', '👩\u200d👩', '\u0000', '\u007f', '▁', '▁a', 'Ġ', '<0x41>', '<s>', '</s>', ' <s> ', '<s><s>\u0085']
words = ["'s", "'S", "don't", "'LL", 'hello', 'the', 'The ', 'of\n', 'x']
pool = spaces + letters + digits + others + words


def text():
    if random.random() < 0.1:
        return ''.join(chr(random.choice([random.randrange(0xD800), random.randrange(0xE000, 0x110000)])) for _ in range(random.randint(1, 6)))
    return ''.join(random.choice(pool) for _ in range(random.randint(1, 9)))


def cases(tokenizer, count):
    """[text, ids, decoded], the last one left out where it is the text."""
    rows = []
    for said in [text() for _ in range(count)]:
        ids = tokenizer.encode(said, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        rows.append([said, ids] if decoded == said else [said, ids, decoded])
    return rows


def byte_letters():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in own]
    return {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(rest)}


letter_of = byte_letters()
frequent = ['ab', 'hello', ' the', ' a', '  ', '\n\n', '12', 'é', 'don', "'s", '漢字', '🙂', '½', '!!', '...', '\r\n', '\ufeff', 'e\u0301', 'a!', '1a', 'the ', ' !']


def vocabulary(is_bytes, lack=None):
    """Letters, all but each `lack`th, and merges that make the frequent words of them from left to right."""
    spelled = (lambda s: ''.join(letter_of[b] for b in s.encode())) if is_bytes else (lambda s: s.replace(' ', '▁'))
    known = [letter_of[b] for b in range(256)] if is_bytes else sorted({c for p in pool for c in spelled(p)} - set('ǆİ한ß৪'))
    vocab = {c: None for i, c in enumerate(known) if not lack or i % lack}
    merges = []
    for word in map(spelled, frequent):
        if all(c in vocab for c in word):
            for i in range(1, len(word)):
                if f'{word[:i]} {word[i]}' not in merges:
                    merges.append(f'{word[:i]} {word[i]}')
                vocab[word[:i + 1]] = None
    return {'vocab': list(vocab), 'merges': merges}


hex_bytes = ['<0x%02X>' % b for b in range(256)]
vocabularies = {'bytes': vocabulary(True), 'some bytes': vocabulary(True, 7), 'letters': vocabulary(False), 'some letters': vocabulary(False, 5)}
kinds = []


def kind(name, vocab, normalizer, pre_tokenizer, decoder, flags=None, **model):
    kinds.append(dict(name=name, vocab=vocab, flags=flags or {}, normalizer=normalizer, pre_tokenizer=pre_tokenizer, decoder=decoder, model=model))


def complete(k):
    """tokenizer.json. The test does the same."""
    own = vocabularies[k['vocab']]
    tokens = own['vocab'] + ([k['model']['unk_token']] if 'unk_token' in k['model'] else []) + (hex_bytes if k['model'].get('byte_fallback') else [])
    added = [{**dict(id=len(tokens) + i, content=c, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True), **k['flags']} for i, c in enumerate(['<s>', '</s>'])]
    model = dict(type='BPE', vocab={t: i for i, t in enumerate(tokens)}, merges=own['merges'], **k['model'])
    return dict(version='1.0', truncation=None, padding=None, added_tokens=added, normalizer=k['normalizer'], pre_tokenizer=k['pre_tokenizer'], post_processor=None, decoder=k['decoder'], model=model)


def sequence(*steps):
    return dict(type='Sequence', pretokenizers=list(steps))


def split(pattern, behavior='Isolated', invert=False):
    return dict(type='Split', pattern=pattern, behavior=behavior, invert=invert)


byte_level = dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True)
plain = {**byte_level, 'use_regex': False}
prefixed = {**byte_level, 'add_prefix_space': True}


def of_bytes(name, *steps, normalizer=None, vocab='bytes', **model):
    kind(name, vocab, normalizer, steps[0] if len(steps) == 1 else sequence(*steps), byte_level, **model)


of_bytes('bytes', byte_level)
of_bytes('bytes, a space before', prefixed)
of_bytes('bytes, a space before, one piece', {**prefixed, 'use_regex': False})
of_bytes('bytes, some of them lacking', byte_level, vocab='some bytes')
of_bytes('bytes, lacking ones unknown', byte_level, vocab='some bytes', unk_token='?unk')
of_bytes('bytes, lacking ones unknown together', byte_level, vocab='some bytes', unk_token='?unk', fuse_unk=True)
of_bytes('bytes, whole words first', byte_level, ignore_merges=True)
for flags in [('lstrip',), ('rstrip',), ('lstrip', 'rstrip'), ('single_word',), ('single_word', 'rstrip', 'normalized')]:
    of_bytes(f'added tokens with {" ".join(flags)}', byte_level, flags={flag: True for flag in flags})
behaviors = ['Isolated', 'Removed', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']
patterns = [dict(Regex=r'\s+|\p{N}|[a-c]+'), dict(String=' '), dict(Regex=r'(a|b)(\w)?|\d')]
for behavior in behaviors:
    for invert in (False, True):
        for i, pattern in enumerate(patterns):
            of_bytes(f'split {i} {behavior}{" inverted" if invert else ""}', split(pattern, behavior, invert), plain)
    of_bytes(f'punctuation {behavior}', dict(type='Punctuation', behavior=behavior), plain)
of_bytes('single digits', dict(type='Digits', individual_digits=True), byte_level)
of_bytes('digits together', dict(type='Digits', individual_digits=False), plain)
for step in ['Whitespace', 'WhitespaceSplit', 'BertPreTokenizer']:
    of_bytes(step, dict(type=step), plain)
of_bytes('a delimiter', dict(type='CharDelimiterSplit', delimiter='a'), plain)
of_bytes('three by three', dict(type='FixedLength', length=3), plain)
qwen = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
of_bytes('qwen', split(dict(Regex=qwen)), plain, normalizer=dict(type='NFC'))
of_bytes('qwen inverted', split(dict(Regex=qwen), 'Removed', True), plain, normalizer=dict(type='NFC'))
for form in ['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'StripAccents']:
    of_bytes(form, byte_level, normalizer=dict(type=form))
of_bytes('strip', byte_level, normalizer=dict(type='Strip', strip_left=True, strip_right=True))
of_bytes('strip the left', byte_level, normalizer=dict(type='Strip', strip_left=True, strip_right=False))
replaced = [dict(type='Replace', pattern=dict(String='a'), content='$&$1'), dict(type='Replace', pattern=dict(Regex=r'\s+'), content=' ')]
of_bytes('replace', byte_level, normalizer=dict(type='Sequence', normalizers=replaced))

spaced = dict(type='Replace', pattern=dict(String=' '), content='▁')
piece = dict(type='Sequence', normalizers=[dict(type='Prepend', prepend='▁'), spaced])
unspaced = dict(type='Replace', pattern=dict(String='▁'), content=' ')
text_of = dict(type='Sequence', decoders=[unspaced, dict(type='ByteFallback'), dict(type='Fuse'), dict(type='Strip', content=' ', start=1, stop=0)])
kind('pieces', 'letters', piece, None, text_of, unk_token='<unk>', fuse_unk=True, byte_fallback=True)
kind('pieces, unknown ones together', 'letters', piece, None, text_of, unk_token='<unk>', fuse_unk=True)
kind('pieces, unknown ones', 'letters', piece, None, text_of, unk_token='<unk>')
kind('pieces, some lacking', 'some letters', piece, None, text_of)
kind('pieces, some as bytes', 'some letters', piece, None, text_of, byte_fallback=True)
for scheme in ['always', 'first', 'never']:
    for splits in (True, False):
        step = dict(type='Metaspace', replacement='▁', prepend_scheme=scheme, split=splits)
        kind(f'metaspace {scheme}{" split" if splits else ""}', 'letters', None, step, step, unk_token='<unk>', fuse_unk=True)
first = dict(type='Metaspace', replacement='▁', prepend_scheme='first', split=True)
kind('metaspace after a split', 'letters', None, sequence(split(dict(String='a')), first), first, unk_token='<unk>')
dollars = dict(type='Sequence', decoders=[{**unspaced, 'content': '$& '}, dict(type='Fuse')])
kind('a decoder that writes dollars', 'letters', None, {**first, 'prepend_scheme': 'never'}, dollars, unk_token='<unk>')

for k in kinds:
    k['cases'] = cases(Tokenizer.from_str(json.dumps(complete(k))), each)
models = {name: cases(Tokenizer.from_file(os.path.join(shared, name, 'tokenizer.json')), of_models) for name in ['pebble-7m-instruct', 'stories260K']}
table = dict(made=f'tokenizers {tokenizers.__version__}', vocabularies=vocabularies, kinds=kinds, models=models)
with open(os.path.join(here, 'tokenizer-cases.json'), 'w') as file:
    file.write(json.dumps(table, separators=(',', ':')).replace('{"name"', '\n{"name"') + '\n')
print(sum(len(k['cases']) for k in kinds), 'texts of', len(kinds), 'kinds,', sum(map(len, models.values())), 'of models')
