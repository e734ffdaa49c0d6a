"""Writes template-cases.json: random templates, and what jinja2 makes of them in the environment that transformers sets up.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install jinja2==3.1.6
    /tmp/venv/bin/python test/text/make_template_cases.py [how many, 500] [seed, 1] [file]
"""
import copy
import json
import os
import random
import sys
import warnings
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

count, seed = int((sys.argv[1:2] or ['500'])[0]), int((sys.argv[2:3] or ['1'])[0])
here = os.path.dirname(os.path.abspath(__file__))
rng = random.Random(seed)
warnings.simplefilter('ignore')


class Generation(jinja2.ext.Extension):
    """transformers' AssistantTracker, without the tracking."""
    tags = {'generation'}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
        return nodes.CallBlock(self.call_method('_body'), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
environment.filters['tojson'] = tojson
environment.globals['raise_exception'] = raise_exception
environment.globals['strftime_now'] = lambda form: datetime.now().strftime(form)

tools = [{'type': 'function', 'function': {'name': 'add', 'description': 'Adds "a" & <b>.', 'parameters': {'type': 'object', 'properties': {'a': {'type': 'number', 'minimum': 0.5}, 'b': {'type': ['number', 'boolean'], 'default': None}}, 'required': ['a', 'b'], 'strict': True}}}]
call = {'id': 'c1', 'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 1, 'b': 2.5, 'c': [True, None]}}}
variables = [
    {'messages': [{'role': 'user', 'content': 'Hello, World!'}, {'role': 'assistant', 'content': '<think>\n  hm \n</think>\n\n    code\n'}, {'role': 'user', 'content': "It's\tfine"}], 'tools': None, 'add_generation_prompt': True},
    {'messages': [{'role': 'system', 'content': ' You are helpful. '}, {'role': 'user', 'content': 'naïve ÉCOLE straße'}], 'tools': tools, 'add_generation_prompt': False},
    {'messages': [{'role': 'user', 'content': ''}], 'tools': None, 'add_generation_prompt': True, 'enable_thinking': False},
    {'messages': [{'role': 'user', 'content': 'x: "1", y: \'2\' \\ z'}, {'role': 'assistant', 'content': None, 'tool_calls': [call]}, {'role': 'tool', 'name': 'add', 'content': '3.5'}, {'role': 'assistant', 'content': '漢字 🙂 end', 'reasoning_content': 'because'}], 'tools': tools, 'add_generation_prompt': True, 'enable_thinking': True},
    {'messages': [], 'tools': None, 'add_generation_prompt': False},
    {'messages': [{'role': 'user', 'content': 'Add.'}, {'role': 'assistant', 'content': '', 'tool_calls': [{'type': 'function', 'function': {'name': 'add', 'arguments': '{"a": 1}'}}] * 2}, {'role': 'tool', 'content': '{"sum": 3}'}, {'role': 'tool', 'content': '4'}], 'tools': tools, 'add_generation_prompt': True},
]

# Small ones of our own that use what the templates of these families use.
families = {
    'Qwen2.5': '''{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'Be helpful.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- message.content }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
''',
    'Qwen3': '''{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- set reasoning_content = '' %}
    {%- if message.reasoning_content is string %}
        {%- set reasoning_content = message.reasoning_content %}
    {%- elif '</think>' in content %}
        {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
        {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}''',
    'Llama 3': '''{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|system|>\\nToday Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|' + message['role'] + '|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- for arg_name, arg_val in tool_call.arguments | items %}
            {{- arg_name + '="' ~ arg_val ~ '"' }}
            {%- if not loop.last %}{{- ", " }}{%- endif %}
        {%- endfor %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}''',
    'SmolLM2': '''{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are small.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}''',
    'SmolLM3': '''{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" -%}
{{- "<|im_start|>system\\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}{%- set reasoning_mode = "/no_think" -%}{%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{%- if "/system_override" in system_message -%}
  {{- custom_instructions.replace("/system_override", "").rstrip() -}}
{%- else -%}
  {%- set today = strftime_now("%d %B %Y") -%}
  {{- "Mode: " + reasoning_mode + "\\n" -}}
  {%- if custom_instructions -%}{{- custom_instructions + "\\n\\n" -}}{%- endif -%}
{%- endif -%}
{%- if xml_tools or python_tools or tools -%}
  {%- set ns = namespace(xml_tool_string="<tools>\\n") -%}
  {%- for tool in tools -%}
    {%- set ns.xml_tool_string = ns.xml_tool_string ~ (tool | string) ~ "\\n" -%}
  {%- endfor -%}
  {{- ns.xml_tool_string + "</tools>" -}}
{%- endif -%}
{# the conversation #}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- endif -%}
{%- endfor -%}''',
    'Gemma 3': '''{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("roles must alternate") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
''',
    'Phi': '''{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}''',
    'Granite': '''{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Cutoff: April 2024.\\nToday: " + strftime_now('%Y')|length|string + ".\\nYou are Granite." %}
    {%- if tools and documents %}
        {%- set system_message = system_message + " With tools and documents." %}
    {%- elif tools %}
        {%- set system_message = system_message + " With tools." %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}
{%- if tools %}
    {{- '<|start_of_role|>available_tools<|end_of_role|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|end_of_text|>\\n' }}
{%- endif %}
{%- if documents %}
    {%- for document in documents %}
        {{- 'Document ' + document['doc_id'] | string + '\\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + (message['content'] or '') + '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
        {%- if controls %}
            {{- ' ' + controls | tojson() }}
        {%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}''',
    'MiniCPM': '''{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {
    "string": "str",
    "number": "float",
    "boolean": "bool"
} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "List[" + json_to_python_type(json_spec.items) + "]"}}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
        {{- json_to_python_type({"type": t}) }}
        {%- if not loop.last %}
            {{- "," }}
        {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}
{%- macro object_to_fields(json_spec, field_indent) %}
    {%- set o_ns = namespace(f = caller() if caller else "") %}
    {%- for param_name, param_fields in json_spec.properties|items %}
        {%- set o_ns.f = o_ns.f + "\\n" + field_indent + param_name + ": " + json_to_python_type(param_fields) %}
        {%- if param_fields.default is defined %}
            {%- if param_fields.type == "string" %}
                {%- set o_ns.f = o_ns.f + " = '" ~ param_fields.default ~ "'" %}
            {%- else %}
                {%- set o_ns.f = o_ns.f + " = " + param_fields.default|string %}
            {%- endif %}
        {%- endif %}
    {%- endfor %}
    {{- o_ns.f }}
{%- endmacro %}
{%- if tools %}
    {%- for tool in tools %}
        {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
        {{- "def " + tool.name + "(" + object_to_fields(tool.parameters, "    ") + "\\n):\\n" }}
        {{- '     + tool.description|default("", true) + \\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}{% if message['role'] == 'user' %}{{'<用户>' + message['content'].strip() + '<AI>'}}{% elif message.content %}{{message['content'].strip()}}{% endif %}{% endfor %}''',
    'DeepSeek-R1-Distill': '''{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['tool_calls'] %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['function']['arguments'] + '\\n'}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}{{message['content']}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜>' + message['content']}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' + message['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}''',
}


def rendered(source, own):
    """None: it fails."""
    try:
        return environment.from_string(source).render(**copy.deepcopy(own), documents=None, bos_token='<s>', eos_token='</s>')
    except Exception:
        return None



def pick(*choices):
    return rng.choice(choices)


def lit():
    return repr_jinja(pick('', ' ', 'user', 'assistant', 'a,b,c', '  two  words ', 'Hello', 'é', '🙂x', "it's", '<|im_start|>', 'line\nfeed', '1', '42', '3.7', 'ab' * 3, '--x--', 'A b-c (d)'))


def repr_jinja(text):
    quote = pick("'", '"')
    return quote + text.replace('\\', '\\\\').replace(quote, '\\' + quote).replace('\n', pick('\\n', '\n')) + quote


class Names:
    """Variables in reach, by what they are likely to be."""

    def __init__(self, outer=None):
        self.kinds = {k: list(v) for k, v in outer.kinds.items()} if outer else {'str': [], 'int': [], 'list': [], 'dict': [], 'ns': [], 'macro': [], 'any': []}
        self.in_loop = outer.in_loop if outer else False

    def add(self, kind):
        name = pick('a', 'b', 'c', 'text', 'n', 'item', 'found') + str(rng.randrange(4))
        self.kinds[kind].append(name)
        return name

    def get(self, kind):
        return rng.choice(self.kinds[kind]) if self.kinds[kind] and rng.random() < 0.7 else None


def string(s, d=0):
    if d > 3 or rng.random() < 0.2:
        return s.get('str') or pick(lit(), lit(), 'messages[0].content', 'messages[-1].role', 'messages[0]["role"]')
    i = rng.randrange(26)
    a = lambda: string(s, d + 1)
    if i < 5:
        return a() + pick('|upper', '|lower', '|trim', '|title', '|capitalize', '|string', '|reverse', '|e', '|urlencode', '|striptags', '|length', '|trim("-o ")', '|replace("o", "0")', '|replace("l", "L", 1)', '|indent', '|indent(2, true)', '|indent(3, blank=true)', '|indent("> ")', '|truncate(8)', '|truncate(5, true, "..", 0)', '|center(12)', '|wordcount', '|default("d")', "|default('d', true)", '|first', '|last', '|int', '|float', '|list|join("-")', '|tojson', '|tojson(ensure_ascii=true)')
    if i < 11:
        return '(' + a() + ')' + pick('.strip()', '.lstrip()', '.rstrip()', '.strip("\\n")', '.lstrip("\\n ")', '.rstrip("!")', '.upper()', '.lower()', '.title()', '.capitalize()', '.swapcase()', '.replace("a", "b")', '.replace("l", "", 1)', '.split(" ")[0]', '.split()[-1]', ".split('</think>')[-1]", '.rsplit(" ", 1)[0]', '.split(",", 1)|join("/")', '.splitlines()|join("|")', '.removeprefix("H")', '.removesuffix("!")', '.zfill(8)', '.ljust(9, "*")', '.rjust(7)', '.center(10, "=")', '.partition(" ")[2]', '.rpartition("o")[0]', '.expandtabs(4)', '[1:]', '[:-1]', '[::-1]', '[::2]', '[-3:]', '[0]', '[5:2:-1]', '.casefold()', '.join(["x", "y", "z"])', '.encode', '.format("q")')
    if i < 14:
        return a() + ' ~ ' + pick(a(), integer(s, d + 1), boolean(s, d + 1), 'none', lst(s, d + 1))
    if i < 16:
        return '(' + a() + ' + ' + a() + ')'
    if i == 16:
        return '(' + a() + ' * ' + pick('2', '0', '3') + ')'
    if i == 17:
        return '(' + a() + ' if ' + boolean(s, d + 1) + pick(' else ' + a(), ' else ' + a(), '') + ')'
    if i == 18:
        return '(' + a() + pick(' or ', ' and ') + a() + ')'
    if i == 19:
        return lst(s, d + 1) + pick('|join', '|join(", ")', "|map('string')|join(' ')", '|join("-", attribute="role")', '|first', '|last', '|min', '|max')
    if i == 20:
        m = s.get('macro')
        return f'{m}({a()})' if m else lit()
    if i == 21:
        return pick('"%s-%d" % (' + a() + ', ' + integer(s, d + 1) + ')', '"%5.2f|" % ' + number(s, d + 1), '"{}:{}".format(' + a() + ', ' + integer(s, d + 1) + ')', "'{0!r:>8}'.format(" + a() + ')', '"%s"|format(' + a() + ')', "'{:,}|{:.1f}'.format(" + integer(s, d + 1) + ', ' + number(s, d + 1) + ')', '"%(x)s"|format(x=' + a() + ')')
    if i == 22:
        return dct(s, d + 1) + pick('|tojson', '|tojson(indent=2)', '|tojson(separators=(",", ":"))', '|tojson(sort_keys=true)', '|tojson(indent=1, ensure_ascii=true)', '|string')
    if i == 23:
        return lst(s, d + 1) + pick('|tojson', '|tojson(indent=4)', '|string')
    if i == 24:
        ns = s.get('ns')
        return f'{ns}.x' if ns else lit()
    return pick('missing', 'missing|default("none")', "messages[9].content|default('gone')" if rng.random() < 0.2 else 'bos_token', 'eos_token', '(messages|last).content', '(messages|first)["content"]', 'messages[0].get("name", "no")')


def integer(s, d=0):
    if d > 3 or rng.random() < 0.3:
        return s.get('int') or str(pick(0, 1, 2, 3, 7, 10, 255, 12345678901234567890))
    a = lambda: integer(s, d + 1)
    return pick(
        lambda: f'({a()} {pick("+", "-", "*", "//", "%")} {a()})',
        lambda: f'({a()} ** {pick(0, 1, 2, 3)})',
        lambda: f'-{a()}',
        lambda: f'({string(s, d + 1)})|length',
        lambda: f'{lst(s, d + 1)}|{pick("length", "count")}',
        lambda: f'{string(s, d + 1)}|int',
        lambda: f'{string(s, d + 1)}|int(7)',
        lambda: f'{number(s, d + 1)}|{pick("int", "round|int", "abs|int")}',
        lambda: '[1, 5, 2]|' + pick('sum', 'max', 'min', 'first', 'last'),
        lambda: f'({string(s, d + 1)}).{pick("count", "find", "rfind")}({lit()})',
        lambda: '0x1F + 0b11 + 1_000',
        lambda: f'(true + {a()})',
    )()


def number(s, d=0):
    if d > 3 or rng.random() < 0.3:
        return str(pick('1.5', '0.1', '2.0', '3.14159', '1e3', '2.675', '0.00001', '1e16', '100.0', '0.5'))
    a = lambda: number(s, d + 1)
    return pick(
        lambda: f'({a()} {pick("+", "-", "*", "/", "//", "%")} {pick(a(), integer(s, d + 1))})',
        lambda: f'({integer(s, d + 1)} / {pick(2, 3, 4, 8)})',
        lambda: f'{a()}|round({pick(0, 1, 2)})',
        lambda: f'{a()}|round({pick(0, 1)}, "{pick("ceil", "floor", "common")}")',
        lambda: f'{a()}|abs',
        lambda: f'{string(s, d + 1)}|float',
        lambda: f'(2 ** -{pick(1, 2)})',
    )()


def boolean(s, d=0):
    if d > 3 or rng.random() < 0.15:
        return pick('true', 'false', 'True', 'add_generation_prompt', 'tools', 'not tools', 'enable_thinking is defined')
    b = lambda: boolean(s, d + 1)
    t = lambda: string(s, d + 1)
    return pick(
        lambda: f'({t()} {pick("==", "!=", "in", "not in")} {t()})',
        lambda: f'({integer(s, d + 1)} {pick("==", "!=", "<", "<=", ">", ">=")} {pick(integer(s, d + 1), number(s, d + 1))})',
        lambda: f'({integer(s, d + 1)} < {integer(s, d + 1)} <= {integer(s, d + 1)})',
        lambda: f'({b()} {pick("and", "or")} {b()})',
        lambda: f'(not {b()})',
        lambda: f'({pick("messages", "tools", "missing", "none", "1", "1.0", "true", lit(), lst(s, d + 1), dct(s, d + 1))} is {pick("", "not ")}{pick("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "callable", "true", "false")})',
        lambda: f'({integer(s, d + 1)} is {pick("odd", "even", "divisibleby 3", "divisibleby(2)", "eq 2", "gt(1)", "lessthan 5", "in [1, 2]", "sameas none")})',
        lambda: f'({t()} is {pick("upper", "lower", "eq " + lit(), "ne(" + lit() + ")", "in " + lit(), "filter" if False else "string")})',
        lambda: f'({t()}).{pick("startswith", "endswith")}({pick(lit(), "(" + lit() + ", " + lit() + ")")})',
        lambda: f'({t()}).{pick("isdigit", "isalpha", "isspace", "isupper", "islower", "isalnum", "isnumeric", "istitle")}()',
        lambda: f'({t()} in {lst(s, d + 1)})',
        lambda: f'("role" in messages[0])',
        lambda: f'({lst(s, d + 1)} == {lst(s, d + 1)})',
        lambda: f'({t()} < {t()})',
        lambda: f'(messages|selectattr("role", "equalto", {pick(chr(39) + "user" + chr(39), chr(39) + "system" + chr(39))})|list|length > 0)',
    )()


def lst(s, d=0):
    if d > 3 or rng.random() < 0.25:
        return s.get('list') or pick('messages', '[1, 2, 3]', '["b", "a", "C"]', '[]', '(1, 2)', "('x',)", '[none, true, 1.5, "s"]', 'range(4)', 'range(5, 1, -2)')
    a = lambda: lst(s, d + 1)
    return pick(
        lambda: f'[{string(s, d + 1)}, {integer(s, d + 1)}]',
        lambda: f'({string(s, d + 1)}).{pick("split()", "split(" + chr(34) + "," + chr(34) + ")", "splitlines()", "rsplit(none, 1)", "split(none, 1)")}',
        lambda: f'{a()}{pick("[1:]", "[:-1]", "[::-1]", "[:2]", "[::2]")}',
        lambda: f'{a()}|{pick("list", "reverse|list", "sort", "sort(reverse=true)", "unique|list", "batch(2)|list", "batch(2, 0)|list", "slice(2)|list", "map(" + chr(39) + "string" + chr(39) + ")|list", "select|list", "reject|list", "select(" + chr(39) + "string" + chr(39) + ")|list", "reject(" + chr(39) + "none" + chr(39) + ")|list")}',
        lambda: 'messages|' + pick('map(attribute="role")|list', 'map(attribute="content", default="-")|list', 'selectattr("content")|list', 'rejectattr("role", "eq", "user")|list', 'selectattr("tool_calls", "defined")|list', 'sort(attribute="role")|list', 'groupby("role")|list', 'map("length")|list', 'map(attribute="content")|map("default", "x", true)|map("upper")|list', 'sum(attribute="missing", start=0)|list' if False else 'list'),
        lambda: f'[1, 2, 3, 4, 5]|{pick("select(" + chr(39) + "odd" + chr(39) + ")|list", "reject(" + chr(39) + "gt" + chr(39) + ", 2)|list", "select(" + chr(39) + "divisibleby" + chr(39) + ", 2)|list", "map(" + chr(39) + "float" + chr(39) + ")|list")}',
        lambda: f'({pick("[1]", "[2, 3]", "messages")} + {pick("[4]", "[]", "messages")})',
        lambda: f'{dct(s, d + 1)}{pick(".keys()|list", ".values()|list", ".items()|list", "|items|list", "|dictsort", "|dictsort(by=" + chr(39) + "value" + chr(39) + ")", "|list")}',
        lambda: f'{string(s, d + 1)}|list',
    )()


def dct(s, d=0):
    if d > 3 or rng.random() < 0.4:
        return s.get('dict') or pick('messages[0]', '{}', "{'a': 1, 'B': 2}", '{"k": [1, {"z": none}], "é": "<&>"}', 'dict(x=1, y="2")', "{1: 'one', 'two': 2.0}", '{"b": true, "a": false}')
    return "{'x': " + string(s, d + 1) + ", 'n': " + pick(integer(s, d + 1), lst(s, d + 1), boolean(s, d + 1), number(s, d + 1)) + '}'


def any_of(s, d=0):
    return pick(string, string, string, integer, number, boolean, lst, dct)(s, d)


def tag(body):
    return '{%' + pick('', '', '', '-', '-', '+') + ' ' + body + ' ' + pick('', '', '', '-', '-', '+') + '%}'


def out(expression):
    return '{{' + pick('', '', '', '-') + ' ' + expression + ' ' + pick('', '', '', '-') + '}}'


def text():
    return pick('', ' ', '\n', '\n\n', '  \n', '\n    ', '\n\t', 'x', 'Text. ', '<|im_start|>', ' a ', '\n  b\n', '{ }', '%}', "it's\n")


def statement(s, d):
    i = rng.randrange(30)
    if i < 8 or d > 2:
        return out(any_of(s))
    if i < 12:
        inner = lambda: block(Names(s), d + 1)
        chain = tag('if ' + boolean(s)) + inner()
        if rng.random() < 0.4:
            chain += tag('elif ' + boolean(s)) + inner()
        if rng.random() < 0.6:
            chain += tag('else') + inner()
        return chain + tag('endif')
    if i < 18:
        own = Names(s)
        own.in_loop = True
        items, name = pick('messages', lst(s), lst(s)), 'm'
        if items == 'messages':
            own.kinds['dict'].append('m')
            own.kinds['str'] += ['m.content', 'm["role"]', 'm.role']
        else:
            own.kinds['any'].append('m')
        own.kinds['int'] += ['loop.index', 'loop.index0', 'loop.length', 'loop.revindex', 'loop.revindex0', 'loop.depth']
        own.kinds['str'] += ['loop.first', 'loop.last', 'loop.previtem', 'loop.cycle("p", "q")', 'loop.changed(m)', 'm']
        head = f'for m in {items}'
        if rng.random() < 0.1:
            head = f'for k, m in {dct(s)}.items()'
            own.kinds['str'].append('k')
        if rng.random() < 0.2:
            head += ' if ' + pick('m', 'm is mapping', 'm.role != "system"', 'loop is undefined', 'm is string or m is number')
        body = block(own, d + 1)
        if rng.random() < 0.15:
            body += tag('if ' + pick('loop.index > 1', 'loop.last', 'm.role == "user"')) + tag(pick('break', 'continue')) + tag('endif') + block(own, d + 1)
        otherwise = tag('else') + block(Names(s), d + 1) if rng.random() < 0.2 else ''
        return tag(head) + body + otherwise + tag('endfor')
    if i < 21:
        kind = pick('str', 'int', 'list', 'dict')
        value = {'str': string, 'int': integer, 'list': lst, 'dict': dct}[kind](s)
        if rng.random() < 0.15:
            one, two = s.add('str'), s.add('int')
            return tag(f'set {one}, {two} = {string(s, 2)}, {integer(s, 2)}')
        return tag(f'set {s.add(kind)} = {value}')
    if i == 21:
        inner = block(Names(s), d + 1)
        return tag('set ' + s.add('str') + pick('', '', ' | upper', ' | trim')) + inner + tag('endset')
    if i == 22:
        first = tag(f'set {(name := s.add("ns"))} = namespace(x={pick(string(s, 2), integer(s, 2))}, found=false)')
        own = Names(s)
        own.in_loop = True
        return first + tag('for m in messages') + tag(f'set {name}.x = {pick(name + ".x ~ m.role", "loop.index", "m.content")}') + block(own, d + 2) + tag('endfor') + out(f'{name}.x')
    if i == 23:
        own = Names()
        own.kinds['str'] += ['p', 'q']
        name = 'f' + str(rng.randrange(5))
        head = pick('p', 'p, q="d"', 'p, q=p', 'p, q=none')
        body = block(own, d + 2) + pick('', out('varargs|length'), out('kwargs|length'), out('caller() if caller else "-"'))
        s.kinds['macro'].append(name)
        return tag(f'macro {name}({head})') + body + tag('endmacro') + out(f'{name}({string(s, 2)})')
    if i == 24 and s.kinds['macro']:
        return tag(f'call {s.get("macro") or s.kinds["macro"][0]}({string(s, 2)})') + block(Names(s), d + 2) + tag('endcall')
    if i == 25:
        own = Names(s)
        own.kinds['str'].append('w')
        return tag(f'with w = {string(s, 2)}') + block(own, d + 1) + tag('endwith')
    if i == 26:
        return tag('filter ' + pick('upper', 'trim', 'replace("a", "@")', 'indent(2)', 'lower|title')) + block(Names(s), d + 1) + tag('endfilter')
    if i == 27:
        return pick('{# note #}', '{#- note -#}\n', '\n  {# note #}\n', tag('raw') + '{{ raw }} {% if %}' + tag('endraw'), tag('generation') + block(Names(s), d + 1) + tag('endgeneration'))
    if i == 28:
        return tag('if ' + boolean(s, 2)) + '{{ raise_exception("no: " ~ ' + string(s, 3) + ') }}' + tag('endif')
    return out(any_of(s) + pick(' if ' + boolean(s, 2) + ' else ' + any_of(s, 2), ', ' + any_of(s, 2), '|string|length'))


def block(s, d=0):
    return ''.join(text() + statement(s, d) for _ in range(rng.randint(1, 3))) + text()


def uncertain(rendered):
    """What is written of addresses, or of the order of nothing."""
    return any(sign in rendered for sign in (' at 0x', ' object', '<built-in', '<bound', '<function', '<Macro', '<jinja2', '<class', 'LoopContext', '<Namespace'))


cases = []
failed = 0
while len(cases) < count:
    source = block(Names())
    own = rng.randrange(len(variables))
    expected = rendered(source, variables[own])
    if expected is None:
        # One in eight may fail.
        if failed > len(cases) / 8:
            continue
        failed += 1
    if len(source) > 400 or (expected and (len(expected) > 300 or uncertain(expected))):
        continue
    cases.append([source, own, expected])
table = dict(
    made=f'jinja2 {jinja2.__version__}',
    variables=variables,
    families=[dict(name=name, template=source, expected=[rendered(source, own) for own in variables]) for name, source in families.items()],
    cases=cases,
)
with open(sys.argv[3] if len(sys.argv) > 3 else os.path.join(here, 'template-cases.json'), 'w') as file:
    file.write(json.dumps(table, separators=(',', ':'), ensure_ascii=False).replace('],["', '],\n["') + '\n')
print(len(cases), 'templates,', failed, 'of which fail')
