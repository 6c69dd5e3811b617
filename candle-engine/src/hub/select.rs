//! Which of a repository's files a model is made of.

use crate::{Error, Result};

use super::RepoId;

/// The files to take: configuration, tokenizer, and either the safetensors of the top folder or one GGUF.
///
/// A GGUF is taken where the name asks for one (`org/name:Q4_K_M`) or where there is nothing else.
///
/// Errors: `NotFound` where there are no weights that this engine reads, `Input` where several GGUF files
/// would do: the message lists them.
pub fn model_files(repo: &RepoId, files: &[String]) -> Result<Vec<String>> {
    let safetensors = if repo.quant.is_none() { safetensors(files) } else { Vec::new() };
    let weights = if safetensors.is_empty() { gguf(repo, files)? } else { safetensors };
    let mut wanted: Vec<String> = files.iter().filter(|file| describes_model(file)).cloned().collect();
    wanted.extend(weights);
    Ok(wanted)
}

/// Small files that say what the weights mean.
fn describes_model(file: &str) -> bool {
    const STEMS: [&str; 2] = ["tokenizer", "chat_template"];
    const NAMES: [&str; 12] = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "modules.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
    ];
    NAMES.contains(&file)
        || file.starts_with("LICENSE")
        || !file.contains('/') && STEMS.iter().any(|stem| file.starts_with(stem))
}

/// The safetensors of the top folder: the canonical names where they exist, for some repositories carry the
/// same weights a second time in another layout.
fn safetensors(files: &[String]) -> Vec<String> {
    if files.iter().any(|file| file == "model.safetensors") {
        return vec!["model.safetensors".into()];
    }
    let is_weights = |file: &str| file.ends_with(".safetensors") || file.ends_with(".safetensors.index.json");
    let all: Vec<String> =
        files.iter().filter(|file| !file.contains('/') && is_weights(file)).cloned().collect();
    if all.iter().any(|file| file == "model.safetensors.index.json") {
        return all.into_iter().filter(|file| file.starts_with("model")).collect();
    }
    all
}

/// The parts of the one GGUF that the name means.
fn gguf(repo: &RepoId, files: &[String]) -> Result<Vec<String>> {
    let mut models: Vec<(String, Vec<String>)> = Vec::new();
    for file in files.iter().filter(|file| is_gguf(file)) {
        let (model, _part) = split_part(file);
        match models.iter_mut().find(|(known, _)| known == model) {
            Some((_, parts)) => parts.push(file.clone()),
            None => models.push((model.to_owned(), vec![file.clone()])),
        }
    }
    let names = |models: &[(String, Vec<String>)]| {
        let names: Vec<&str> = models.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    let Some(quant) = &repo.quant else {
        return match models.len() {
            0 => Err(Error::NotFound {
                what: format!("{repo} has neither safetensors nor GGUF weights{}", other_weights(files)),
            }),
            1 => Ok(models.remove(0).1),
            _ => Err(Error::Input(format!(
                "{repo} has several GGUF files, name one as {repo}:QUANT: {}",
                names(&models)
            ))),
        };
    };
    let exact = |name: &str| {
        let base = name.rsplit('/').next().unwrap_or(name);
        base.eq_ignore_ascii_case(quant.strip_suffix(".gguf").unwrap_or(quant))
    };
    let mut chosen: Vec<usize> = (0..models.len()).filter(|&i| exact(&models[i].0)).collect();
    if chosen.is_empty() {
        chosen = (0..models.len()).filter(|&i| names_quant(&models[i].0, quant)).collect();
    }
    match chosen[..] {
        [one] => Ok(models.swap_remove(one).1),
        [] if models.is_empty() => Err(Error::NotFound { what: format!("{} has no GGUF files", repo.name) }),
        [] => Err(Error::NotFound {
            what: format!("{} has no GGUF file `{quant}`; it has {}", repo.name, names(&models)),
        }),
        _ => {
            let several: Vec<_> = chosen.iter().map(|&i| models[i].clone()).collect();
            Err(Error::Input(format!(
                "`{quant}` is the name of several GGUF files of {}: {}",
                repo.name,
                names(&several)
            )))
        }
    }
}

/// A language model in a GGUF; image projectors and importance matrices come in the same container.
fn is_gguf(file: &str) -> bool {
    let base = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
    base.ends_with(".gguf") && !base.starts_with("mmproj") && !base.contains("imatrix")
}

/// `dir/name-00001-of-00002.gguf` → (`dir/name`, part 1); one file is its own only part.
fn split_part(file: &str) -> (&str, u32) {
    let stem = file.get(..file.len().saturating_sub(".gguf".len())).unwrap_or(file);
    let part = || {
        let (rest, total) = stem.rsplit_once("-of-")?;
        let (name, part) = rest.rsplit_once('-')?;
        (total.len() == 5 && part.len() == 5).then_some(())?;
        total.parse::<u32>().ok()?;
        Some((name, part.parse().ok()?))
    };
    part().unwrap_or((stem, 1))
}

/// Whether a file's name carries the quantization as a word: `Q4_K` is in `x-Q4_K.gguf`, not in `x-Q4_K_M`.
fn names_quant(model: &str, quant: &str) -> bool {
    let (model, quant) = (model.to_ascii_lowercase(), quant.to_ascii_lowercase());
    model.match_indices(&quant).any(|(at, _)| {
        let before = model[..at].chars().next_back();
        let after = model[at + quant.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn other_weights(files: &[String]) -> String {
    const FOREIGN: [&str; 8] = [".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".ckpt", ".mlmodel"];
    let found = files.iter().find(|file| FOREIGN.iter().any(|suffix| file.ends_with(suffix)));
    found.map_or_else(String::new, |file| format!(" (it has {file})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(repo: &str, names: &[&str]) -> Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        model_files(&RepoId::parse(repo)?, &names)
    }

    #[test]
    fn a_plain_model() {
        let found = files(
            "o/n",
            &[
                "README.md",
                "config.json",
                "model.safetensors",
                "onnx/model.onnx",
                "tokenizer.json",
                "x/m.safetensors",
            ],
        );
        assert_eq!(found.unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
    }

    #[test]
    fn shards_without_the_second_copy() {
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let index = "model.safetensors.index.json";
        let found = files("o/n", &["consolidated.safetensors", shards[0], shards[1], index]).unwrap();
        assert_eq!(found, [shards[0], shards[1], index]);
    }

    #[test]
    fn a_quantization_by_name() {
        let repo =
            ["config.json", "m-Q4_K.gguf", "m-Q4_K_M.gguf", "m-BF16.gguf", "m-f16.gguf", "mmproj-f16.gguf"];
        assert_eq!(files("o/n:q4_k_m", &repo).unwrap(), ["config.json", "m-Q4_K_M.gguf"]);
        assert_eq!(files("o/n:Q4_K", &repo).unwrap(), ["config.json", "m-Q4_K.gguf"]);
        assert_eq!(files("o/n:F16", &repo).unwrap(), ["config.json", "m-f16.gguf"]);
        assert_eq!(files("o/n:m-BF16.gguf", &repo).unwrap(), ["config.json", "m-BF16.gguf"]);
        let missing = files("o/n:Q8_0", &repo).unwrap_err().to_string();
        assert!(missing.contains("Q8_0") && missing.contains("m-Q4_K_M"), "{missing}");
        let which = files("o/n", &repo).unwrap_err().to_string();
        assert!(which.contains("o/n:QUANT") && which.contains("m-f16"), "{which}");
    }

    #[test]
    fn parts_belong_together() {
        let parts = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"];
        assert_eq!(files("o/n:Q8_0", &[parts[0], parts[1], "m-Q4_0.gguf"]).unwrap(), parts);
        assert_eq!(files("o/n", &parts).unwrap(), parts);
    }

    #[test]
    fn no_weights_of_ours() {
        let message = files("o/n", &["config.json", "pytorch_model.bin"]).unwrap_err().to_string();
        assert!(message.contains("pytorch_model.bin"), "{message}");
    }
}
