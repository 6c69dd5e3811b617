//! Names of repositories, and of the quantization wanted from one.

use crate::{Error, Result};

/// A model on the Hub: `org/name`, perhaps a revision, perhaps one of several GGUF files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoId {
    /// `org/name`; a few old models have no organisation.
    pub name: String,
    /// Branch, tag or commit; the branch `main` where absent.
    pub revision: Option<String>,
    /// Which GGUF file: a quantization such as `Q4_K_M`, or the file's name.
    pub quant: Option<String>,
}

impl RepoId {
    /// Reads `org/name`, `org/name@revision`, `org/name:Q4_K_M`, each perhaps after `hf://`.
    ///
    /// Errors: `Input` where it is no name that the Hub allows.
    ///
    /// ```
    /// use candle_engine::hub::RepoId;
    ///
    /// let repo = RepoId::parse("hf://org/model-GGUF@v1:Q4_K_M")?;
    /// assert_eq!(repo.name, "org/model-GGUF");
    /// assert_eq!(repo.revision(), "v1");
    /// assert_eq!(repo.quant.as_deref(), Some("Q4_K_M"));
    /// # Ok::<(), candle_engine::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::Input(format!("`{text}` is no Hub model: {why}"));
        let rest = text.strip_prefix("hf://").unwrap_or(text);
        let (rest, quant) = match rest.split_once(':') {
            Some((rest, quant)) => (rest, Some(quant)),
            None => (rest, None),
        };
        let (name, revision) = match rest.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (rest, None),
        };
        if name.split('/').count() > 2 || !name.split('/').all(is_name) || name.len() > 192 {
            return Err(bad("expected org/name, of letters, digits, `-`, `_` and `.`"));
        }
        if revision.is_some_and(|revision| !is_revision(revision)) {
            return Err(bad("the revision after `@` is no branch, tag or commit"));
        }
        if quant.is_some_and(|quant| quant.is_empty() || quant.len() > 255 || quant.contains(['/', '\\'])) {
            return Err(bad("expected a quantization or a file name after `:`"));
        }
        Ok(Self { name: name.into(), revision: revision.map(Into::into), quant: quant.map(Into::into) })
    }

    /// The revision to resolve.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// Its folder in the cache: `models--org--name`.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }

    /// The name behind a folder of the cache.
    pub(super) fn from_folder(folder: &str) -> Option<Self> {
        let name = folder.strip_prefix("models--")?.replacen("--", "/", 1);
        Self::parse(&name).ok().filter(|repo| repo.quant.is_none() && repo.revision.is_none())
    }
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
        self.quant.iter().try_for_each(|quant| write!(f, ":{quant}"))
    }
}

/// The Hub's own rule, so that a name can never be a path.
fn is_name(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    part.len() <= 96
        && edge(part.chars().next())
        && edge(part.chars().last())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !part.contains("--")
        && !part.contains("..")
}

/// A revision becomes a path under `refs/`, so each of its parts must be a plain name.
fn is_revision(revision: &str) -> bool {
    revision.len() <= 255
        && revision.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.chars().any(|c| c.is_control() || c.is_whitespace() || "\\:?*[~^\"<>|".contains(c))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for text in
            ["gpt2", "org/name", "org/name@main", "org/na.me-1_b@refs/pr/1", "o/n@abc:Q4_K_M", "o/n:f16"]
        {
            assert_eq!(RepoId::parse(text).unwrap().to_string(), text);
        }
        let repo = RepoId::parse("HuggingFaceTB/SmolLM2-135M").unwrap();
        assert_eq!(repo.folder(), "models--HuggingFaceTB--SmolLM2-135M");
        assert_eq!(RepoId::from_folder(&repo.folder()), Some(repo));
        assert_eq!(RepoId::from_folder("datasets--a--b"), None);
    }

    #[test]
    fn paths_are_no_names() {
        for text in [
            "", "/", "a/", "/a", "a/b/c", "../b", "a/..", "a/b--c", "./model", "a\\b", "a/b@", "a/b@../x",
            "a/b@x//y", "a/b:", "a/b:x/y", "a b/c", "a/b@x y", "a/.b", "a/b.",
        ] {
            assert!(RepoId::parse(text).is_err(), "{text}");
        }
    }
}
