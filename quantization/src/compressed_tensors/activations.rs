//! Which matrices want activations of 16 bits.

use std::collections::BTreeSet;

use serde_json::Value;

/// How precise the activations of each matrix of integers are: 8 bits, or 16.
///
/// What a file says of them is followed. Where it says nothing, weights of 8 bits take activations of 16, for such a
/// model was meant to lose nothing there; weights of 4 bits take 8, whose error is far below the weights' own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activations {
    rules: Vec<Rule>,
}

/// A group of `quantization_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    precise: bool,
    /// Bits of its weights.
    bits: u64,
    /// The matrices that it names.
    names: BTreeSet<String>,
    /// Whether it is for classes, or for names with some pattern, too.
    general: bool,
}

impl Activations {
    /// 16 bits for the matrices of these names, without `.weight`; 8 for the others.
    pub fn precise_for(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().collect();
        Self { rules: vec![Rule { precise: true, bits: 0, names, general: false }] }
    }

    /// Reads a `quantization_config` that [`super::check`] has found good.
    pub fn read(config: &Value) -> Self {
        let groups = config["config_groups"].as_object();
        Self { rules: groups.into_iter().flat_map(|groups| groups.values()).map(Rule::read).collect() }
    }

    /// Whether the activations of a matrix of so many bits take 16.
    ///
    /// A name is looked for first. Which class or pattern is meant is not found out: the weights' bits tell groups
    /// apart, and where they do not, what the most precise of them wants is right for all.
    pub fn is_precise(&self, name: &str, bits: u64) -> bool {
        match self.rules.iter().find(|rule| rule.names.contains(name)) {
            Some(rule) => rule.precise,
            None => self.rules.iter().any(|rule| rule.general && rule.bits == bits && rule.precise),
        }
    }
}

impl Rule {
    fn read(group: &Value) -> Self {
        let bits = |args: &Value| args["num_bits"].as_u64().unwrap_or(8);
        let (weights, inputs) = (bits(&group["weights"]), &group["input_activations"]);
        let precise = if inputs.is_null() { weights == 8 } else { bits(inputs) > 8 };
        let targets = group["targets"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // A table multiplies nothing; where it is the head too, it is as other matrices are.
        let targets = targets.filter(|name| *name != "Embedding" && !name.ends_with("embed_tokens"));
        // A module's name has a dot, or is the head's.
        let (names, others): (Vec<&str>, Vec<&str>) =
            targets.partition(|name| !name.starts_with("re:") && (name.contains('.') || *name == "lm_head"));
        let names = names.into_iter().map(str::to_owned).collect();
        Self { precise, bits: weights, names, general: !others.is_empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(bits: u64, inputs: Value, targets: &[&str]) -> Value {
        json!({"weights": {"num_bits": bits}, "input_activations": inputs, "targets": targets})
    }

    #[test]
    fn what_a_file_says() {
        let eight = json!({"num_bits": 8});
        for (bits, inputs, expected) in [
            (8, eight.clone(), false),
            (8, Value::Null, true),
            (4, Value::Null, false),
            (4, json!({"num_bits": 16}), true),
        ] {
            let all = json!({"config_groups": {"group_0": group(bits, inputs, &["Linear"])}});
            assert_eq!(Activations::read(&all).is_precise("a.b", bits), expected, "{all}");
        }
        let some = Activations::read(&json!({"config_groups": {
            "group_0": group(8, eight.clone(), &["Linear"]),
            "group_1": group(8, Value::Null, &["a.down", "lm_head"]),
            "group_2": group(4, json!({"num_bits": 16}), &["re:.*up"]),
        }}));
        let precise = |name| some.is_precise(name, 8);
        assert_eq!(["a.down", "lm_head", "a.q", "a.up"].map(precise), [true, true, false, false]);
        assert!(some.is_precise("a.up", 4), "a group is known by its bits");
        let table = Activations::read(&json!({"config_groups": {
            "group_0": group(8, eight.clone(), &["Linear"]),
            "group_1": group(8, Value::Null, &["Embedding", "model.embed_tokens"]),
        }}));
        assert!(!table.is_precise("a.q", 8) && !table.is_precise("model.embed_tokens", 8));
        let unsure = Activations::read(&json!({"config_groups": {
            "group_0": group(8, eight, &["Linear"]),
            "group_1": group(8, Value::Null, &["re:.*up"]),
        }}));
        assert!(unsure.is_precise("a.q", 8), "patterns are not read");
        assert!(!Activations::default().is_precise("a.q", 8));
        assert!(Activations::precise_for(["a".to_owned()]).is_precise("a", 4));
    }
}
