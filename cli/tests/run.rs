//! `run` and `chat`: what goes to stdout, where prompts come from, that seeds are honoured.

mod common;

use std::io::Read;

use common::{ascii, command, finish, reference, run, run_with, Folder};
use serde_json::{json, Value};

const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}\
                      {% if add_generation_prompt %}<assistant>{% endif %}";

/// The ids that PyTorch takes for the likeliest.
fn reference_greedy(case: &str) -> (String, Vec<u64>) {
    let bytes = std::fs::read(reference(&format!("decoders/{case}/expected.safetensors"))).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let ids = |name: &str| -> Vec<u64> {
        let at = |i: usize| 8 + length + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        bytes[at(0)..at(1)].chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let prompt: Vec<_> = ids("input_ids").iter().map(u64::to_string).collect();
    (prompt.join(","), ids("greedy"))
}

#[test]
fn token_ids_in_and_out_without_a_tokenizer() {
    let (prompt, greedy) = reference_greedy("llama3");
    let model = reference("decoders/llama3");
    let args = ["run", "-m", &model, "--tokens", &prompt, "-n", "16", "--temp", "0", "--ignore-eos"];
    let ids: Vec<_> = greedy.iter().map(u64::to_string).collect();
    assert_eq!(run(&args).ok(), ids.join(",") + "\n");
    let report = run(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(report["tokens"], json!(greedy));
    assert_eq!(report["text"], Value::Null);
    assert_eq!(report["prompt_tokens"], 24);
    assert_eq!(report["finish_reason"], "length");
}

#[test]
fn threads_do_not_change_the_tokens() {
    let model = ascii();
    let text = |threads: &str, seed: &str| {
        run(&["run", "-m", &model, "-p", "Hello", "-n", "24", "-t", threads, "-s", seed]).ok()
    };
    assert_eq!(text("1", "7"), text("2", "7"));
    assert_ne!(text("1", "7"), text("1", "8"));
}

#[test]
fn json_has_all_its_fields() {
    let report = run(&["run", "-m", &ascii(), "-p", "Hi", "-n", "4", "--json", "--ignore-eos"]).json();
    let fields: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "text",
            "tokens",
            "prompt_tokens",
            "load_ms",
            "first_token_ms",
            "prefill_tokens_per_s",
            "decode_tokens_per_s",
            "peak_rss_bytes",
            "finish_reason",
        ]
    );
    assert!(report["text"].is_string());
    assert_eq!(report["tokens"].as_array().unwrap().len(), 4);
    for number in ["load_ms", "first_token_ms", "prefill_tokens_per_s", "decode_tokens_per_s"] {
        assert!(report[number].as_f64().unwrap() > 0.0, "{number}");
    }
}

#[test]
fn prompts_come_from_words_files_and_stdin() {
    let folder = Folder::new();
    let file = folder.write("prompt.txt", "Hello\n");
    let model = ascii();
    let options = ["-n", "12", "--temp", "0"];
    let with = |args: &[&str], stdin: &str| run_with(&[&["run"], args, &options].concat(), stdin).ok();
    let expected = with(&["-m", &model, "-p", "Hello"], "");
    assert_eq!(with(&[&model, "Hello"], "ignored"), expected);
    assert_eq!(with(&["-m", &model, "Hello"], ""), expected);
    assert_eq!(with(&[&model, "-p", "Hello"], ""), expected);
    assert_eq!(with(&[&model], "Hello\n"), expected);
    assert_eq!(with(&[&model, "-f", "-"], "Hello\n"), expected);
    assert_eq!(with(&[&model, "-p", "Hello", "-f", &file], ""), with(&[&model, "-p", "Hello\n\nHello"], ""));
}

#[test]
fn the_environment_sets_options() {
    let model = ascii();
    let mut command = command(&["run", "-p", "Hello", "--json"]);
    command
        .env("CANDLE_ENGINE_MODEL", &model)
        .env("CANDLE_ENGINE_PREDICT", "3")
        .env("CANDLE_ENGINE_TEMP", "0");
    command.env("CANDLE_ENGINE_IGNORE_EOS", "1");
    let report = finish(command, "").json();
    assert_eq!(report["tokens"].as_array().unwrap().len(), 3);
}

#[test]
fn a_full_context_ends_the_text() {
    let report =
        run(&["run", "-m", &ascii(), "-p", "Hello", "-c", "16", "-n", "-1", "--ignore-eos", "--json"]).json();
    assert_eq!(report["finish_reason"], "context_full");
    // The last token needs no position.
    assert_eq!(
        report["prompt_tokens"].as_u64().unwrap() + report["tokens"].as_array().unwrap().len() as u64,
        17
    );
}

#[cfg(feature = "builtin")]
#[test]
fn the_first_command_tells_a_story() {
    let story = run(&["run", "Once upon a time", "-s", "1"]).ok();
    assert!(story.split_whitespace().count() > 20 && story.ends_with('\n'), "{story}");
    // Nothing to go on with is a beginning too.
    let story = run(&["run", "-n", "8", "--temp", "0"]).ok();
    assert!(story.split_whitespace().count() > 2, "{story}");
}

#[test]
fn stop_texts_are_not_shown() {
    let model = ascii();
    let args = ["run", "-m", &model, "-p", "Hello", "-n", "32", "--temp", "0", "--ignore-eos"];
    let whole = run(&args).ok();
    let whole = whole.trim_end_matches('\n');
    let stop: String = whole.chars().skip(3).take(2).collect();
    let cut = run(&[&args[..], &["--stop", &stop, "--json"]].concat()).json();
    assert_eq!(cut["finish_reason"], "stop");
    assert_eq!(cut["text"].as_str().unwrap(), &whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn a_template_turns_a_prompt_into_a_message() {
    let folder = Folder::new();
    let template = folder.write("template.jinja", CHATML);
    let model = ascii();
    let args = ["run", "-m", &model, "-n", "8", "--temp", "0", "--json"];
    let with = |more: &[&str]| run(&[&args[..], more].concat()).json();
    let answered = with(&["-p", "Hi", "--chat-template-file", &template, "--system", "S"]);
    let spelled = with(&["-p", "<system>S\n<user>Hi\n<assistant>"]);
    assert_eq!(answered["tokens"].as_array().unwrap().len(), spelled["tokens"].as_array().unwrap().len());
    let raw = with(&["-p", "Hi", "--chat-template-file", &template, "--raw"]);
    assert_eq!(raw["prompt_tokens"], with(&["-p", "Hi"])["prompt_tokens"]);
    assert!(answered["prompt_tokens"].as_u64() > raw["prompt_tokens"].as_u64());
}

#[test]
fn quiet_is_quiet_and_verbose_says_tokens_per_second() {
    let model = ascii();
    let args = ["run", "-m", &model, "-p", "Hello", "-n", "4"];
    assert_eq!(run(&args).err, "");
    assert_eq!(run(&[&args[..], &["-q"]].concat()).err, "");
    let verbose = run(&[&args[..], &["-v"]].concat()).err;
    for part in ["prefill", "decode", "tokens/s", "seed"] {
        assert!(verbose.contains(part), "{verbose}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut command = command(&["run", "-m", &ascii(), "-p", "Hello", "-n", "400", "--ignore-eos"]);
    let mut child = command.spawn().unwrap();
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap(); // and closed
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[cfg(unix)]
#[test]
fn ctrl_c_is_130() {
    let folder = Folder::new();
    let model = folder.write("model.gguf", of_long_context());
    let mut child =
        command(&["run", "-m", &model, "-p", "Hello", "-n", "-1", "--ignore-eos"]).spawn().unwrap();
    let mut first = [0];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A model that would write for minutes: time enough to interrupt it.
fn of_long_context() -> Vec<u8> {
    const U32: [u8; 4] = 4u32.to_le_bytes();
    let mut file = std::fs::read(ascii()).unwrap();
    let key = b"llama.context_length";
    let at = file.windows(key.len()).position(|bytes| bytes == key).unwrap() + key.len();
    assert_eq!(file[at..at + 4], U32);
    file[at + 4..at + 8].copy_from_slice(&(1u32 << 20).to_le_bytes());
    file
}

#[test]
fn a_conversation_from_a_pipe() {
    let folder = Folder::new();
    let template = folder.write("template.jinja", CHATML);
    let saved = folder.0.join("saved.json").display().to_string();
    let model = ascii();
    let args = ["chat", &model, "--chat-template-file", &template, "-n", "6", "--temp", "0", "-v"];
    let ran = run_with(&args, &format!("Hello\nAnd\\\nyou?\n/save {saved}\n/clear\n/nonsense\n"));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("/nonsense"), "{ran:?}");
    // The second turn finds the first in the cache.
    assert!(ran.err.lines().filter(|l| l.contains("are in the cache")).count() == 2, "{ran:?}");
    let messages: Value = serde_json::from_slice(&folder.read("saved.json")).unwrap();
    let roles: Vec<_> = messages.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(messages[2]["content"], "And\nyou?");
}

#[test]
fn a_long_conversation_drops_its_oldest_turns() {
    let folder = Folder::new();
    let template = folder.write("template.jinja", CHATML);
    let model = ascii();
    let args = ["chat", &model, "--chat-template-file", &template, "-n", "8", "-c", "128", "--system", "S"];
    let ran = run_with(&args, &"Tell me more about that\n".repeat(8));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("dropped"), "{ran:?}");
}
