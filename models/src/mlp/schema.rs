//! What a network's inputs and outputs mean, as `config.json` keeps it.

use serde::{Deserialize, Serialize};

/// What a network's inputs and outputs mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// The columns that it reads, in order.
    pub inputs: Vec<Input>,
    /// What it predicts.
    pub target: Target,
}

/// A column that the network reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The column's name.
    pub name: String,
    /// What is in it.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Numbers; the network sees (x − mean) / std.
    Number {
        /// Of the training rows.
        mean: f32,
        /// Of the training rows; 1 if they are all the same.
        std: f32,
        /// Whether some are missing: these count as the mean, and a further input is 1 for them.
        missing: bool,
    },
    /// One of some texts; a missing one is none of them.
    Category {
        /// The texts, sorted.
        values: Vec<String>,
        /// The width of the embedding, or `None` if each text has an input of its own (one-hot).
        embedding: Option<usize>,
        /// Whether some are missing: an embedding knows nothing of it otherwise.
        missing: bool,
    },
}

/// What a network predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// One of some labels.
    Classes {
        /// The column's name.
        name: String,
        /// In the order of the outputs.
        labels: Vec<String>,
    },
    /// A number; the network's output is (y − mean) / std.
    Number {
        /// The column's name.
        name: String,
        /// Of the training rows.
        mean: f32,
        /// Of the training rows.
        std: f32,
    },
}

impl Kind {
    /// How many of the network's dense inputs it takes.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Number { missing, .. } => 1 + usize::from(*missing),
            Self::Category { embedding: Some(_), .. } => 0,
            Self::Category { values, .. } => values.len(),
        }
    }
}

impl Target {
    /// The column's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Classes { name, .. } | Self::Number { name, .. } => name,
        }
    }

    /// The labels; none of a number.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Classes { labels, .. } => labels,
            Self::Number { .. } => &[],
        }
    }
}

impl Schema {
    /// The network's dense inputs.
    pub fn dense(&self) -> usize {
        self.inputs.iter().map(|input| input.kind.width()).fold(0, usize::saturating_add)
    }

    /// Entries and width of each embedding; entry 0 is for a missing text.
    pub fn embeddings(&self) -> Vec<(usize, usize)> {
        let size = |input: &Input| match &input.kind {
            Kind::Category { values, embedding, .. } => Some((values.len() + 1, (*embedding)?)),
            Kind::Number { .. } => None,
        };
        self.inputs.iter().filter_map(size).collect()
    }

    /// What its first layer sees: the dense inputs and the embeddings side by side.
    pub fn width(&self) -> usize {
        self.embeddings().iter().map(|(_, width)| *width).fold(self.dense(), usize::saturating_add)
    }

    /// The network's outputs.
    pub fn outputs(&self) -> usize {
        self.target.labels().len().max(1)
    }
}
