//! What a matrix can be converted to.

use std::fmt;
use std::str::FromStr;

use candle_engine::weights::Format;

/// A number format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Target {
    /// Plain floats.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Integers of 8 bits, symmetric.
    Int8 {
        /// Inputs that share a scale; `None` is a scale for the whole row.
        group: Option<usize>,
    },
    /// Integers of 4 bits.
    Int4 {
        /// Inputs that share a scale.
        group: usize,
        /// Whether each group has a zero point too.
        zero_point: bool,
    },
    /// GGUF's blocks of 32 numbers of 8 bits.
    Q8_0,
    /// GGUF's blocks of 32 numbers of 4 bits.
    Q4_0,
}

/// Group sizes of 8 bits, and of 4 bits, that can be written.
const GROUPS8: &[usize] = &[32, 64, 128, 256];
const GROUPS4: &[usize] = &[32, 64, 128];

impl Target {
    /// 8 bits with a scale for each row.
    pub const INT8: Self = Self::Int8 { group: None };

    /// What rows of `width` numbers become: smaller groups, or 8 bits, where the groups do not divide them.
    pub fn for_width(self, width: usize) -> Self {
        let divides = |group: &usize| width.is_multiple_of(*group);
        match self {
            Self::Int8 { group: Some(group) } if !divides(&group) => Self::INT8,
            Self::Int4 { group, zero_point } => {
                match GROUPS4.iter().rev().find(|&&smaller| smaller <= group && divides(&smaller)) {
                    Some(&group) => Self::Int4 { group, zero_point },
                    None => Self::INT8,
                }
            }
            Self::Q8_0 | Self::Q4_0 if !divides(&32) => Self::F16,
            other => other,
        }
    }

    /// Whether these are integers with scales in tensors of their own, as compressed-tensors stores them.
    pub fn is_grouped(self) -> bool {
        matches!(self, Self::Int8 { .. } | Self::Int4 { .. })
    }

    /// Whether this is one of GGUF's block formats.
    pub fn is_blocks(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// The format of a matrix that was converted.
    pub fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::BF16 => Format::BF16,
            Self::Int8 { group } => Format::Int8 { group: group.map(|g| g as u32) },
            Self::Int4 { group, .. } => Format::Int4 { group: Some(group as u32) },
            Self::Q8_0 => Format::Q8_0,
            Self::Q4_0 => Format::Q4_0,
        }
    }

    /// The words that are understood, for messages.
    pub fn names() -> &'static str {
        "int8, int8-g32…256, int4-g32, int4-g64, int4-g128 (with -asym: zero points), f32, f16, bf16, q8_0, q4_0; GGUF's \
         other types are read and not written"
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let wrong = || format!("no format `{word}`: known are {}", Self::names());
        let word = &*word.to_ascii_lowercase();
        Ok(match word {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "bf16" => Self::BF16,
            "int8" => Self::INT8,
            "int4" => Self::Int4 { group: 64, zero_point: false },
            "q8_0" => Self::Q8_0,
            "q4_0" => Self::Q4_0,
            _ => {
                let (kind, rest) = word.split_once("-g").ok_or_else(wrong)?;
                let (group, zero_point) =
                    rest.strip_suffix("-asym").map_or((rest, false), |group| (group, true));
                let group = group.parse().map_err(|_| wrong())?;
                match kind {
                    "int8" if GROUPS8.contains(&group) && !zero_point => Self::Int8 { group: Some(group) },
                    "int4" if GROUPS4.contains(&group) => Self::Int4 { group, zero_point },
                    _ => return Err(wrong()),
                }
            }
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::BF16 => f.write_str("bf16"),
            Self::Int8 { group: None } => f.write_str("int8"),
            Self::Int8 { group: Some(group) } => write!(f, "int8-g{group}"),
            Self::Int4 { group, zero_point } => {
                write!(f, "int4-g{group}{}", if *zero_point { "-asym" } else { "" })
            }
            Self::Q8_0 => f.write_str("q8_0"),
            Self::Q4_0 => f.write_str("q4_0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        for word in [
            "f32",
            "f16",
            "bf16",
            "int8",
            "int8-g256",
            "int4-g32",
            "int4-g64",
            "int4-g128-asym",
            "q8_0",
            "q4_0",
        ] {
            assert_eq!(word.parse::<Target>().unwrap().to_string(), word);
            assert_eq!(word.to_uppercase().parse::<Target>().unwrap().to_string(), word);
        }
        for word in ["int8-g48", "int4-g256", "int8-g64-asym", "int4-g", "q4_k", "", "int4-g-64"] {
            let error = word.parse::<Target>().unwrap_err();
            assert!(error.contains(word) && error.contains("int4-g64"), "{error}");
        }
    }

    #[test]
    fn rows_that_groups_do_not_divide() {
        let int4 = |group| Target::Int4 { group, zero_point: false };
        assert_eq!(int4(128).for_width(2048), int4(128));
        assert_eq!(int4(128).for_width(576), int4(64));
        assert_eq!(int4(64).for_width(96), int4(32));
        assert_eq!(int4(32).for_width(40), Target::INT8);
        assert_eq!(Target::Int8 { group: Some(128) }.for_width(192), Target::INT8);
        assert_eq!(Target::Q4_0.for_width(40), Target::F16);
    }
}
