//! The instruction set that the kernels use, found at run time.
//!
//! Holding an [`Isa`] proves that this CPU has the level's features: only detection makes values.

use std::fmt;
use std::sync::OnceLock;

use crate::{Error, Result};

/// Environment variable that forces a level.
pub const ISA_VARIABLE: &str = "CANDLE_ENGINE_ISA";

/// A level of the instruction set that this CPU was found to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa {
    level: Level,
    dot: Dot,
    pairs: Pairs,
    registers: Registers,
}

/// What float kernels are compiled for, each with the features that they may enable.
///
/// A `#[target_feature]` attribute in the kernels names the same list; the two must agree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Plain Rust: the specification of every kernel.
    Scalar,
    /// `avx2,fma,f16c`
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// `neon`, part of the aarch64 baseline
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// What kernels on 8-bit integers are compiled for, each with the features that they may enable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dot {
    /// Plain Rust: the specification of every kernel.
    Scalar,
    /// `avx2,fma,f16c`
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `avxvnni,avx2,fma,f16c`
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// What kernels on pairs of bf16 are compiled for, with the features that they may enable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// There are none: bf16 is widened for the float kernels.
    Widened,
    /// `avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// What kernels on matrix registers, of bytes and of bf16, are compiled for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registers {
    /// There are none.
    None,
    /// `amx-tile,amx-int8,amx-bf16`, by assembly
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// Every level of this architecture, from the plainest to the widest.
const ALL: &[(&str, Isa)] = &[
    (
        "scalar",
        Isa { level: Level::Scalar, dot: Dot::Scalar, pairs: Pairs::Widened, registers: Registers::None },
    ),
    #[cfg(target_arch = "x86_64")]
    ("avx2", Isa { level: Level::Avx2, dot: Dot::Avx2, pairs: Pairs::Widened, registers: Registers::None }),
    #[cfg(target_arch = "x86_64")]
    (
        "avxvnni",
        Isa { level: Level::Avx2, dot: Dot::AvxVnni, pairs: Pairs::Widened, registers: Registers::None },
    ),
    #[cfg(target_arch = "x86_64")]
    (
        "avx512",
        Isa { level: Level::Avx512, dot: Dot::Avx2, pairs: Pairs::Widened, registers: Registers::None },
    ),
    #[cfg(target_arch = "x86_64")]
    (
        "avx512vnni",
        Isa { level: Level::Avx512, dot: Dot::Avx512Vnni, pairs: Pairs::Widened, registers: Registers::None },
    ),
    #[cfg(target_arch = "x86_64")]
    (
        "avx512bf16",
        Isa {
            level: Level::Avx512,
            dot: Dot::Avx512Vnni,
            pairs: Pairs::Avx512Bf16,
            registers: Registers::None,
        },
    ),
    #[cfg(target_arch = "x86_64")]
    (
        "amx",
        Isa {
            level: Level::Avx512,
            dot: Dot::Avx512Vnni,
            pairs: Pairs::Avx512Bf16,
            registers: Registers::Amx,
        },
    ),
    #[cfg(target_arch = "aarch64")]
    ("neon", Isa { level: Level::Neon, dot: Dot::Scalar, pairs: Pairs::Widened, registers: Registers::None }),
];

impl Level {
    /// Whether this CPU, and the system on it, have the features listed at the level.
    fn is_supported(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
        }
    }
}

impl Dot {
    /// Whether this CPU, and the system on it, have the features listed at the level.
    fn is_supported(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Level::Avx2.is_supported(),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Level::Avx2.is_supported() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Level::Avx512.is_supported() && is_x86_feature_detected!("avx512vnni"),
        }
    }
}

impl Pairs {
    /// Whether this CPU, and the system on it, have the features listed at the level.
    fn is_supported(self) -> bool {
        match self {
            Self::Widened => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Level::Avx512.is_supported() && is_x86_feature_detected!("avx512bf16"),
        }
    }

    /// Whether an instruction on pairs takes longer than the two on floats that it stands for: on Intel's CPUs as long
    /// as four of them. Where there are matrix registers, those multiply many tokens, and a few wait for memory.
    fn are_slow(self) -> bool {
        match self {
            Self::Widened => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => super::cpu::is_intel(),
        }
    }
}

impl Registers {
    /// Whether this CPU, and the system on it, have the features listed at the level.
    fn is_supported(self) -> bool {
        match self {
            Self::None => true,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => super::amx::is_supported(),
        }
    }
}

impl Isa {
    /// Every level that this CPU has, from the plainest to the widest. The first is always scalar.
    pub fn available() -> Vec<Self> {
        let supported = |isa: &Self| {
            isa.level.is_supported()
                && isa.dot.is_supported()
                && isa.pairs.is_supported()
                && isa.registers.is_supported()
        };
        ALL.iter().map(|(_, isa)| *isa).filter(supported).collect()
    }

    /// The level that `CANDLE_ENGINE_ISA` names, or the fastest one if it is unset or empty.
    ///
    /// Errors: `Input` if the variable names a level that does not exist or that this CPU lacks. A program
    /// calls this once at its start, so that the mistake is reported before any work is done.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os(ISA_VARIABLE) {
            None => Self::named(""),
            Some(name) => Self::named(&name.to_string_lossy()),
        }
    }

    /// The level of this name, or the fastest one if the name is empty: the widest but for [`Pairs::are_slow`].
    fn named(name: &str) -> Result<Self> {
        let mut available = Self::available();
        if name.is_empty() {
            available.retain(|isa| isa.registers != Registers::None || !isa.pairs.are_slow());
            return Ok(available[available.len() - 1]);
        }
        if let Some(isa) = available.iter().find(|isa| isa.name().eq_ignore_ascii_case(name)) {
            return Ok(*isa);
        }
        let list: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        let list = list.join(", ");
        Err(Error::Input(format!("{ISA_VARIABLE}={name} is not a level of this CPU, which has {list}")))
    }

    /// The level that the kernels use: that of [`Isa::from_env`], found once.
    ///
    /// # Panics
    ///
    /// If `CANDLE_ENGINE_ISA` names a level that this CPU lacks: a forced level is never replaced in silence.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::from_env().unwrap_or_else(|error| panic!("{error}")))
    }

    /// The level's name, as `CANDLE_ENGINE_ISA` spells it.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(_, isa)| *isa == self).map_or("", |(name, _)| name)
    }

    /// The level, for a float kernel's dispatching `match`.
    pub(crate) fn level(self) -> Level {
        self.level
    }

    /// The level at which one token meets blocks or short rows of 8 bits: that of AVX2 where a CPU reads them faster so.
    pub(crate) fn for_one_of_bytes(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if self.dot == Dot::Avx512Vnni && super::cpu::is_zen5() {
            return Self { dot: Dot::Avx2, ..self };
        }
        self
    }

    /// The level, for an integer kernel's dispatching `match`.
    pub(crate) fn dot(self) -> Dot {
        self.dot
    }

    /// The level, for a bf16 kernel's dispatching `match`.
    pub(crate) fn pairs(self) -> Pairs {
        self.pairs
    }

    /// The level, for a kernel's dispatching `match` that prefers matrix registers.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn registers(self) -> Registers {
        self.registers
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_always_there_and_names_are_found_again() {
        let available = Isa::available();
        assert_eq!(available[0].name(), "scalar");
        for isa in &available {
            assert_eq!(Isa::named(isa.name()).unwrap(), *isa);
            assert_eq!(Isa::named(&isa.name().to_uppercase()).unwrap(), *isa);
        }
        // The widest, or what is just below pairs that are slow.
        let (fastest, widest) = (Isa::named("").unwrap().name(), available[available.len() - 1].name());
        assert!(
            fastest == widest || (fastest, widest) == ("avx512vnni", "avx512bf16"),
            "{fastest}, {widest}"
        );
    }

    #[test]
    fn an_unknown_level_is_an_error_that_lists_the_known_ones() {
        let message = Isa::named("avx1024").unwrap_err().to_string();
        assert!(message.contains("avx1024") && message.contains("scalar"), "{message}");
    }

    /// CI forces each level in turn and must see that it ran.
    #[test]
    fn the_forced_level_is_the_one_used() {
        if let Some(name) = std::env::var_os(ISA_VARIABLE).filter(|name| !name.is_empty()) {
            assert_eq!(Isa::best().name(), name.to_string_lossy().to_lowercase());
        }
    }
}
