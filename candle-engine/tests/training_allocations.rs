//! A steady step of training allocates nothing. On one thread, whose allocations alone are counted: a pool's worker
//! allocates once, whenever it comes to start.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use candle_engine::kernels::threads::set_threads;
use candle_engine::train::{
    Activation, BatchNorm, CrossEntropy, Embedding, Graph, LayerNorm, Linear, Optimizer, Params,
};
use candle_engine::Result;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_steady_step_allocates_nothing() -> Result<()> {
    let optimizers =
        || [Optimizer::sgd(0.1, 0.9), Optimizer::adamw(0.01), Optimizer::adam(0.01).clip_norm(1.0)];
    set_threads(1);
    for mut optimizer in optimizers() {
        let (mut params, mut graph) = (Params::new(5), Graph::new());
        let table = Embedding::new(&mut params, "table", 10, 300)?;
        let norm = LayerNorm::new(&mut params, "norm", 300)?;
        let hidden = Linear::new(&mut params, "hidden", 300, 200)?;
        let batch = BatchNorm::new(&mut params, "batch", 200)?;
        let out = Linear::new(&mut params, "out", 200, 10)?;
        let (ids, labels) = (graph.ids("ids", 64), graph.ids("labels", 64));
        let x = table.forward(&mut graph, ids);
        let x = norm.forward(&mut graph, x)?;
        let x = hidden.forward(&mut graph, x)?;
        let x = batch.forward(&mut graph, x)?;
        let x = graph.activation(x, Activation::Gelu);
        let x = graph.dropout(x, 0.1)?;
        let y = out.forward(&mut graph, x)?;
        let loss = graph.cross_entropy(y, labels, CrossEntropy::default())?;
        let mut plan = graph.training(loss, &params)?;
        for i in 0..64 {
            plan.ids_mut(ids)[i] = i as u32 % 10;
            plan.ids_mut(labels)[i] = i as u32 * 7 % 10;
        }
        // The first allocates the optimizer's state, the second what the audit of the first gave back.
        plan.step(&mut params, &mut optimizer)?;
        plan.step(&mut params, &mut optimizer)?;
        let before = ALLOCATIONS.get();
        for _ in 0..5 {
            plan.step(&mut params, &mut optimizer)?;
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{optimizer:?}");
    }
    Ok(())
}
