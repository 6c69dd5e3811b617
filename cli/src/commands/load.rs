//! From the command line to an open model.

use std::path::Path;

use candle_core::Device;
use candle_engine::kernels::threads::set_threads;
use candle_engine::kv::KvType;
use candle_engine_models::{ChatTemplate, Error, LoadOptions, Model, Session, Source};

use crate::args::{KvFormat, ModelArgs, PlaceArgs, ENV_PREFIX};
use crate::exit::{Failure, Outcome};
use crate::output::Ui;

/// The model's word: the positional one, `-m`, the environment's, or the built-in one.
pub fn word(positional: Option<&String>, args: &ModelArgs) -> String {
    positional.or(args.model.as_ref()).cloned().unwrap_or_else(default_word)
}

/// The model where none is named.
pub fn default_word() -> String {
    let name = format!("{ENV_PREFIX}MODEL");
    std::env::var(name).ok().filter(|word| !word.is_empty()).unwrap_or_else(|| "builtin".into())
}

/// Where the model lies; a name on the Hub is fetched if it is not in the cache.
pub fn locate(word: &str, ui: &Ui) -> Outcome<Source> {
    match Source::parse(word)? {
        #[cfg(feature = "hub")]
        Source::Hub(name) => super::hub::resolve(&name, ui),
        source => {
            let _ = ui;
            Ok(source)
        }
    }
}

/// Opens the model on the device and with the threads that the command line asks for.
pub fn open(word: &str, place: &PlaceArgs, ui: &Ui) -> Outcome<Model> {
    if let Some(threads) = place.threads {
        set_threads(threads);
    }
    let options = LoadOptions { quantize: place.quantize.clone(), ..options(&place.device, place.kv_type)? };
    Ok(Model::from_source(&locate(word, ui)?, &options)?)
}

/// How to load.
pub fn options(device: &str, kv: Option<KvFormat>) -> Outcome<LoadOptions> {
    let kv = kv.map(|kv| match kv {
        KvFormat::F32 => KvType::F32,
        KvFormat::F16 => KvType::F16,
        KvFormat::Int8 => KvType::I8,
    });
    Ok(LoadOptions { device: self::device(device)?, kv, ..LoadOptions::default() })
}

/// An empty session with the context that the command line asks for.
pub fn session(model: &Model, place: &PlaceArgs, ui: &Ui) -> Session {
    let session = model.session();
    match place.ctx_size {
        0 => session,
        wanted => {
            let own = session.context();
            if wanted > own {
                ui.note(format_args!(
                    "the model was made for a context of {own} tokens: {wanted} are too many"
                ));
            }
            session.with_context(wanted)
        }
    }
}

/// Replaces the model's chat template by that of a file.
pub fn set_template(model: &mut Model, file: Option<&Path>) -> Outcome {
    let Some(path) = file else { return Ok(()) };
    let source =
        std::fs::read_to_string(path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
    let token = |id: Option<u32>| model.tokenizer().ok()?.token(id?);
    let bos = model.tokenizer().ok().and_then(|t| t.bos());
    let (bos, eos) = (token(bos), token(model.stop_tokens().first().copied()));
    model.set_template(ChatTemplate::new(&source, bos.as_deref(), eos.as_deref())?);
    Ok(())
}

/// Refuses token ids that are none of the model's.
pub fn check_ids(model: &Model, ids: &[u32]) -> Outcome {
    let vocab = model.decoder().config().dims.vocab;
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(Error::Input(format!("token id {id}: the vocabulary has {vocab} tokens")).into()),
        None => Ok(()),
    }
}

/// The device of that name.
pub fn device(name: &str) -> Outcome<Device> {
    let lacking = |feature: &str| {
        Failure::usage(format!("--device {name}: this build cannot use it, it lacks the feature `{feature}`"))
    };
    let broken = |e: candle_core::Error| Failure::usage(format!("--device {name}: {e}"));
    match name.split_once(':').map_or((name, None), |(kind, n)| (kind, Some(n))) {
        ("auto", None) => Ok(best_device()),
        ("cpu", None) => Ok(Device::Cpu),
        ("cuda", _) if !cfg!(feature = "cuda") => Err(lacking("cuda")),
        ("metal", _) if !cfg!(feature = "metal") => Err(lacking("metal")),
        ("cuda", n) => Device::new_cuda(ordinal(name, n)?).map_err(broken),
        ("metal", n) => Device::new_metal(ordinal(name, n)?).map_err(broken),
        _ => Err(Failure::usage(format!("--device {name}: expected auto, cpu, cuda, cuda:N or metal"))),
    }
}

fn ordinal(name: &str, number: Option<&str>) -> Outcome<usize> {
    let wrong = |_| Failure::usage(format!("--device {name}: expected a number after the colon"));
    number.unwrap_or("0").parse().map_err(wrong)
}

/// A GPU that this build can use and this machine has, else the CPU.
fn best_device() -> Device {
    let cuda = || Device::new_cuda(0).ok().filter(|_| cfg!(feature = "cuda"));
    let metal = || Device::new_metal(0).ok().filter(|_| cfg!(feature = "metal"));
    cuda().or_else(metal).unwrap_or(Device::Cpu)
}
