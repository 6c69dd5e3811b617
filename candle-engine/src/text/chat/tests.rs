//! Chat templates against transformers' own renderings (`tests/reference/make_chat.py`), and against bad ones.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{json, Map, Value};

use super::*;

#[derive(Deserialize)]
struct Fixture {
    tokens: Map<String, Value>,
    tools: Vec<Value>,
    conversations: Map<String, Value>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    template: String,
    conversation: String,
    tools: Value,
    add_generation_prompt: bool,
    extra: Map<String, Value>,
    text: Option<String>,
    error: Option<String>,
}

fn reference(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/reference").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn render(source: &str) -> Result<String> {
    ChatTemplate::new(source, None, None)?.render(&[Message::user("Hello")], None, true, None)
}

fn message(result: Result<String>) -> String {
    result.map(|text| text.chars().take(200).collect::<String>()).unwrap_err().to_string()
}

#[test]
fn renders_what_transformers_renders() {
    let fixture: Fixture = serde_json::from_str(&reference("chat.json")).unwrap();
    let token = |name: &str| fixture.tokens[name].as_str();
    let mut wrong = Vec::new();
    for row in &fixture.rows {
        let source = reference(&format!("chat/{}.jinja", row.template));
        let template = ChatTemplate::new(&source, token("bos_token"), token("eos_token")).unwrap();
        let messages: Vec<Message> = Message::deserialize_all(&fixture.conversations[&row.conversation]);
        let tools = row.tools.as_u64().map(|n| Value::from(&fixture.tools[..n as usize]));
        let got = template.render(&messages, tools.as_ref(), row.add_generation_prompt, Some(&row.extra));
        let right = match (&got, &row.text, &row.error) {
            (Ok(got), Some(text), _) => got == text,
            (Err(Error::Template(got)), None, Some(raised)) => got == raised,
            (Err(_), None, None) => true,
            _ => false,
        };
        if !right {
            let Row { template, conversation, tools, text, error, .. } = row;
            wrong.push(format!("{template} {conversation} {tools}: {got:?}\nexpected {text:?} {error:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), fixture.rows.len(), wrong.join("\n"));
}

impl Message {
    fn deserialize_all(list: &Value) -> Vec<Message> {
        Vec::deserialize(list).unwrap()
    }
}

#[test]
fn messages_keep_their_shape() {
    let text = r#"[{"role":"user","content":[{"type":"text","text":"x"}],"name":"n"},{"role":"assistant","content":null},{"role":"tool"}]"#;
    let messages: Vec<Message> = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&messages).unwrap(), text);
    let template = "{% for m in messages %}{{ m.content is defined }} {{ m.content is none }} {% endfor %}";
    let template = ChatTemplate::new(template, None, None).unwrap();
    assert_eq!(template.render(&messages, None, false, None).unwrap(), "True False True True False False ");
}

#[test]
fn arguments_in_json_text_become_objects() {
    let calls =
        json!([{"function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2.0]}"}}, {"arguments": "no"}]);
    let mut said = Message::assistant("");
    said.more.insert("tool_calls".into(), calls);
    let source =
        "{% for c in messages[0].tool_calls %}{{ (c.function or c).arguments | tojson }}{% endfor %}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    assert_eq!(template.render(&[said], None, false, None).unwrap(), r#"{"b": 1, "a": [2.0]}"no""#);
}

#[test]
fn earlier_reasoning_goes_by_every_name() {
    let mut said = Message::assistant("4");
    said.more.insert("reasoning".into(), "2+2".into());
    let template =
        ChatTemplate::new("{{ messages[0].thinking ~ messages[0].reasoning_content }}", None, None).unwrap();
    assert_eq!(template.render(&[said], None, false, None).unwrap(), "2+22+2");
}

#[test]
fn faults_are_told_with_their_line() {
    assert_eq!(message(render("\n{% if %}")), "chat template: line 2: syntax error: unexpected end of block");
    assert_eq!(message(render("a\n{{ raise_exception('Not ' ~ 1) }}")), "chat template: Not 1");
    assert!(message(render("{{ messages[5].role }}")).contains("line 1: undefined value"));
    assert!(message(render("{{ nothing() }}")).contains("unknown function"));
    assert!(message(render("{{ nothing | tojson }}")).contains("undefined"));
    assert!(message(render("{{ 1 | tojson(indent=1000000000) }}")).contains("1000000000"));
    assert!(message(render("{% include 'x' %}")).contains("template not found"));
}

#[test]
fn hostile_templates_end() {
    let grow = |what: &str| {
        format!("{{% set ns = namespace(x='a') %}}{{% for i in range(99999) %}}{{% for j in range(99999) %}}{what}{{% endfor %}}{{% endfor %}}")
    };
    let deep = "(".repeat(100_000);
    let hostile = [
        grow(""),
        grow("{% set ns.x = [ns.x] %}"),
        grow("{% set ns.x = {'a': ns.x} %}"),
        grow("{% set ns.x = ns.x ~ 'aaaaaaaaaa' %}"),
        grow("{{ 'a' * 99999 }}"),
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".into(),
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}".into(),
        "{{ 'a' * 999999999999 }}".into(),
        "{{ [1] * 999999999999 }}".into(),
        "{{ range(999999999999) | list }}".into(),
        "{{ 9 ** 999999 }}".into(),
        format!("{{{{ {deep} }}}}"),
        "{% if true %}".repeat(100_000),
        "{%".into(),
        "{% generation".into(),
        "{{ strftime_now('%') ~ strftime_now(1) }}".into(),
        "{{ 1 // 0 }}".into(),
        "{{ messages.0.content[::0] }}".into(),
    ];
    for source in hostile {
        let start = Instant::now();
        let what = render(&source).map(|text| text.len()).map_err(|e| e.to_string());
        let shown: String = source.chars().take(150).collect();
        assert!(what.is_err(), "{shown}: {what:?}");
        println!("{:>8.1?} {shown}: {}", start.elapsed(), what.unwrap_err());
        assert!(start.elapsed().as_secs() < 5, "{shown}");
    }
}

#[test]
fn values_nested_as_deeply_as_fuel_lasts_fit_the_stack() {
    // Two values need twice the fuel for the same depth.
    let cases = [
        ("[ns.x]", "", "", 95_000),
        ("{'a': ns.x}", "", "", 85_000),
        ("[ns.x]", "", "{{ ns.x }}", 95_000),
        ("[ns.x]", "", "{{ ns.x | tojson | length }}", 95_000),
        ("{'a': ns.x}", "", "{{ ns.x | tojson | length }}", 85_000),
        ("[ns.x]", "{% set ns.y = [ns.y] %}", "{{ ns.x == ns.y }}", 60_000),
    ];
    for (value, second, print, depth) in cases {
        let half = depth / 2;
        let each = format!("{{% for i in range({half}) %}}{{% set ns.x = {value} %}}{second}{{% endfor %}}");
        let source = format!("{{% set ns = namespace(x=1, y=1) %}}{each}{each}{print}");
        println!("{value} {second} {print}: {:?}", render(&source).map(|text| text.len()));
    }
}

#[test]
fn dates() {
    let at = |format: &str, seconds| date::strftime(format, seconds);
    assert_eq!(at("%d %b %Y", 0), "01 Jan 1970");
    assert_eq!(
        at("%A, %B %-d, %Y %H:%M:%S %j %U %W %u %w", 1_709_210_096),
        "Thursday, February 29, 2024 12:34:56 060 08 09 4 4"
    );
    assert_eq!(
        at("%a %e %y %I %p %T %F %D %R %% %C %Z%z %-H %-j", 951_782_399),
        "Mon 28 00 11 PM 23:59:59 2000-02-28 02/28/00 23:59 % 20 UTC+0000 23 59"
    );
    assert_eq!(
        at("%c|%x|%X|%h|%n%t|%f", 4_102_444_799),
        "Thu Dec 31 23:59:59 2099|12/31/99|23:59:59|Dec|\n\t|000000"
    );
    assert_eq!(at("%Q %-Q é%é % ", 0), "%Q %-Q é%é % ");
    assert_eq!(at("100%", 0), "100%");
    assert_eq!(at("%-", 0), "%-");
    // Every day of the 400 years after which the calendar repeats, counted out.
    let (mut year, mut month, mut day) = (1970, 1, 1);
    for days in 0..146_097 {
        assert_eq!(at("%Y %-m %-d", days * 86_400), format!("{year} {month} {day}"));
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = [31, 28 + i32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
        day += 1;
        if day > length {
            (month, day) = (month + 1, 1);
        }
        if month > 12 {
            (year, month) = (year + 1, 1);
        }
    }
    assert_eq!(render("{{ strftime_now('%Y') | length }}").unwrap(), "4");
}

#[test]
fn folders() {
    let dir = std::env::temp_dir().join(format!("candle-engine-chat-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let render = |tools: Option<&Value>| {
        ChatTemplate::from_dir(&dir).unwrap().unwrap().render(&[], tools, false, None).unwrap()
    };
    let tools = json!([{"type": "function"}]);

    assert!(ChatTemplate::from_dir(&dir).unwrap().is_none());
    assert!(ChatTemplate::from_dir(dir.join("nothing")).unwrap().is_none());
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<b>", "lstrip": false}, "eos_token": null, "more": [1]}"#,
    );
    assert!(ChatTemplate::from_dir(&dir).unwrap().is_none());
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<b>"}, "pad_token": "<p>", "eos_token": null, "chat_template": "config {{ bos_token ~ pad_token ~ eos_token }}"}"#,
    );
    assert_eq!(render(None), "config <b><p>");
    write(
        "tokenizer_config.json",
        r#"{"eos_token": "<e>", "chat_template": [{"name": "tool_use", "template": "tool {{ eos_token }}"}, {"name": "default", "template": "plain"}, {"name": "rag", "template": "{% bad"}]}"#,
    );
    assert_eq!(
        (render(None), render(Some(&tools)), render(Some(&json!([])))),
        ("plain".into(), "tool <e>".into(), "plain".into())
    );
    write("chat_template.json", r#"{"chat_template": "json {{ eos_token }}"}"#);
    assert_eq!(render(Some(&tools)), "json <e>");
    write("chat_template.jinja", "jinja {{ eos_token }}\n");
    assert_eq!(render(None), "jinja <e>");

    let message = || ChatTemplate::from_dir(&dir).unwrap_err().to_string();
    write("chat_template.jinja", "{% if");
    assert!(message().contains("chat_template.jinja: chat template: line 1"), "{}", message());
    fs::write(dir.join("chat_template.jinja"), [0xff]).unwrap();
    assert!(message().contains("UTF-8"));
    fs::remove_file(dir.join("chat_template.jinja")).unwrap();
    write("chat_template.json", "{");
    assert!(message().contains("chat_template.json"));
    write("chat_template.json", r#"{"chat_template": [{"name": "rag", "template": ""}]}"#);
    assert!(message().contains("`default`"));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn generation_tags_keep_their_whitespace_control() {
    let neutral = dialect::without_generation_tags;
    assert_eq!(neutral("a{%- generation +%}b{% endgeneration -%}c"), "a{%- with +%}b{% endwith -%}c");
    assert_eq!(
        neutral("{% set generation = 1 %}{{ generation }}"),
        "{% set generation = 1 %}{{ generation }}"
    );
    assert_eq!(neutral("{% {%generation%} %"), "{% {%with%} %");
}
