//! One message of a conversation.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{json, Map, Value};

/// A message in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// A text, a list of parts, or null; `None` if the key is absent, which templates tell apart from null.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// All other keys: `tool_calls`, `tool_call_id`, `name`, `reasoning_content` …
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Null is a value here, not an absence.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl Message {
    /// A message with a text and nothing else.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(Value::String(text.into())), more: Map::new() }
    }

    /// What the model is told about its part.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new("system", text)
    }

    /// What a person said.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new("user", text)
    }

    /// What the model said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new("assistant", text)
    }

    /// The content, where it is a plain text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_ref()?.as_str()
    }

    /// The message as templates expect it.
    ///
    /// OpenAI sends a tool call's arguments as JSON text, but templates are written for the object, so it is parsed.
    /// Earlier reasoning goes by several names; templates find it under `reasoning_content` and `thinking`.
    pub(super) fn for_template(&self) -> Value {
        let mut map = Map::from_iter([("role".to_owned(), json!(self.role))]);
        map.extend(self.content.clone().map(|content| ("content".to_owned(), content)));
        map.extend(self.more.clone());

        let calls = map.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            let holder = if call.get("function").is_some() { &mut call["function"] } else { call };
            let Some(arguments) = holder.get_mut("arguments") else { continue };
            let parsed =
                arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
            if let Some(object) = parsed {
                *arguments = Value::Object(object);
            }
        }

        let names = ["reasoning_content", "thinking", "reasoning"];
        let reasoning = names.iter().find_map(|name| map.get(*name).filter(|v| !v.is_null()));
        if let Some(reasoning) = reasoning.cloned() {
            map.entry("thinking").or_insert_with(|| reasoning.clone());
            map.insert("reasoning_content".into(), reasoning);
        }
        Value::Object(map)
    }
}
