//! This engine.

use std::path::Path;

use candle_engine::kernels::threads;
use candle_engine_models::{LoadOptions, Model, Session};

use crate::{Engine, Outcome};

struct Ours {
    model: Model,
    session: Session,
}

pub fn open(path: &Path) -> Outcome<Box<dyn Engine>> {
    if let Ok(n) = std::env::var("CANDLE_ENGINE_THREADS") {
        threads::set_threads(n.parse()?);
    }
    let model = Model::open(&path.display().to_string(), &LoadOptions::default())?;
    let session = model.session();
    Ok(Box::new(Ours { model, session }))
}

impl Engine for Ours {
    fn feed(&mut self, tokens: &[u32]) -> Outcome<u32> {
        let logits = self.session.feed(tokens)?;
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        Ok(best.ok_or("no logits")? as u32)
    }

    fn reset(&mut self) -> Outcome<()> {
        self.session = self.model.session();
        Ok(())
    }
}
