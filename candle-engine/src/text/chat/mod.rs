//! Chat templates: how a conversation becomes the text that an instruct model was trained on.

mod date;
mod dialect;
mod message;
mod source;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use minijinja::value::{Serde, Value};
use minijinja::Environment;
use serde_json::{json, Map};

pub use self::message::Message;
use crate::{Context, Error, Result};

/// Instructions that a template may execute. Real ones need about a hundred for each message.
const FUEL: u64 = 1_000_000;
/// Units: bytes. A context of a million tokens is about 5 MB of text.
const OUTPUT_LIMIT: usize = 64 << 20;
/// A rendering takes about a millisecond; this bounds what fuel does not see, such as copies of very long strings.
const TIME_LIMIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Units: bytes. A template can nest values as deeply as its fuel lasts, and printing or dropping them recurses. The
/// system hands out pages only as they are touched.
const STACK: usize = 256 << 20;

/// A conversation's layout, in the Jinja dialect of transformers.
///
/// A template comes with the weights, so it is somebody else's program: its steps, time, depth and output are bounded
/// here. What it may hold in memory is bounded only through these, as in other Jinja engines.
///
/// ```
/// use candle_engine::text::chat::{ChatTemplate, Message};
/// let source = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}\
///               {% if add_generation_prompt %}<assistant>{% endif %}";
/// let template = ChatTemplate::new(source, None, None)?;
/// let text = template.render(&[Message::user(" Hello. ")], None, true, None)?;
/// assert_eq!(text, "<user>Hello.<assistant>");
/// # Ok::<(), candle_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    env: Arc<Environment<'static>>,
    /// `bos_token` and the like, by the names that templates use.
    tokens: Map<String, serde_json::Value>,
    source: String,
    tool_use: bool,
}

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are the texts of the tokens that it may mention.
    ///
    /// Errors: `Template`, with the line, if it is not Jinja.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let given = [("bos_token", bos), ("eos_token", eos)];
        let tokens = given.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
        Self::compile(source, None, tokens.collect())
    }

    /// Like [`new`](Self::new), with a second template for conversations that offer tools.
    pub fn with_tool_use(source: &str, tool_use: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let plain = Self::new(source, bos, eos)?;
        Self::compile(source, Some(tool_use), plain.tokens)
    }

    /// Reads the template of a model folder; `None` if it has none.
    ///
    /// Looks into `chat_template.jinja`, `chat_template.json`, then `tokenizer_config.json`, which also names the
    /// special tokens.
    ///
    /// Errors: `Io`, `Malformed` or `Template`, with the file.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let Some(found) = source::find(dir.as_ref())? else { return Ok(None) };
        Self::compile(&found.default, found.tool_use.as_deref(), found.tokens)
            .at(found.path.display())
            .map(Some)
    }

    fn compile(source: &str, tool_use: Option<&str>, tokens: Map<String, serde_json::Value>) -> Result<Self> {
        let compile = || {
            let mut env = dialect::environment()?;
            env.set_fuel(Some(FUEL));
            env.add_template_owned("default", dialect::without_generation_tags(source))?;
            if let Some(tool_use) = tool_use {
                env.add_template_owned("tool_use", dialect::without_generation_tags(tool_use))?;
            }
            Ok(env)
        };
        let env = compile().map_err(|e| describe(&e))?;
        Ok(Self { env: Arc::new(env), tokens, source: source.to_owned(), tool_use: tool_use.is_some() })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template does anything with tools.
    pub fn supports_tools(&self) -> bool {
        self.tool_use || self.source.contains("tools")
    }

    /// Lays out a conversation.
    ///
    /// `tools` is a list of OpenAI-style tool descriptions, or nothing. With `add_generation_prompt` the text ends where
    /// the model's answer begins. `extra` holds further variables, such as `enable_thinking` or `date_string`.
    ///
    /// Errors: `Template`, with what the template itself raised if it did.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
        extra: Option<&Map<String, serde_json::Value>>,
    ) -> Result<String> {
        let mut variables = self.tokens.clone();
        variables.insert("documents".into(), serde_json::Value::Null);
        variables.extend(extra.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        variables.insert("messages".into(), messages.iter().map(Message::for_template).collect());
        variables.insert("tools".into(), json!(tools));
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());

        let offered = tools.is_some_and(|t| t.as_array().is_none_or(|list| !list.is_empty()) && !t.is_null());
        let name = if self.tool_use && offered { "tool_use" } else { "default" };
        self.on_own_stack(name, Value::from(Serde(&variables)))
    }

    /// Renders on a thread of its own, for a deep stack and a time limit.
    fn on_own_stack(&self, name: &'static str, variables: Value) -> Result<String> {
        let env = self.env.clone();
        let (sender, receiver) = mpsc::sync_channel(1);
        let render = move || {
            let mut out = Bounded(Vec::new());
            let rendered = env.get_template(name).and_then(|template| {
                template.render_captured_to(variables, &mut out)?;
                Ok(())
            });
            let text = rendered
                .map_err(|e| describe(&e))
                .and_then(|()| String::from_utf8(out.0).map_err(|e| Error::Template(e.to_string())));
            // Nobody listens any more if the time was up.
            let _ = sender.send(text);
        };
        let thread = std::thread::Builder::new().name("chat-template".into()).stack_size(STACK);
        thread.spawn(render).map_err(|e| Error::Template(format!("no thread to render it on: {e}")))?;
        receiver.recv_timeout(TIME_LIMIT).unwrap_or_else(|gone| {
            Err(Error::Template(match gone {
                mpsc::RecvTimeoutError::Timeout => format!("not done after {} s", TIME_LIMIT.as_secs()),
                mpsc::RecvTimeoutError::Disconnected => "the rendering failed".to_owned(),
            }))
        })
    }
}

/// Says what went wrong: the template's own words if it raised, else the fault and its line.
fn describe(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(raised) = current.downcast_ref::<dialect::Raised>() {
            return Error::Template(raised.0.clone());
        }
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Error::Template(io.to_string());
        }
        cause = current.source();
    }
    let mut what = error.kind().to_string();
    if let Some(detail) = error.detail() {
        what = format!("{what}: {detail}");
    }
    if let Some(line) = error.line() {
        what = format!("line {line}: {what}");
    }
    Error::Template(what)
}

/// Collects output up to the limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > OUTPUT_LIMIT - self.0.len() {
            return Err(io::Error::other(format!("more than {OUTPUT_LIMIT} bytes of output")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
