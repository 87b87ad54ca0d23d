//! What training needs of the other ranks: a handful of collectives. [`Job`] is the real thing.

use crate::TrainError;
use rmpi::{Op, Request, Shared, World};

/// The ranks of a training job.
pub(crate) trait Ranks {
    /// A sum under way.
    type Sum;
    /// This rank.
    fn rank(&self) -> usize;
    /// How many there are.
    fn size(&self) -> usize;
    /// Where they are and how they talk: `nodes=4 rail=tcp local=shm`, the rails between nodes first.
    fn describe(&self) -> String;
    /// Gives every rank the values of rank 0.
    fn share(&mut self, values: &mut [f32]) -> Result<(), TrainError>;
    /// Sums over all ranks.
    fn sum(&mut self, values: &mut [f64]) -> Result<(), TrainError>;
    /// Starts summing a bucket over all ranks; every rank starts its buckets in the same order.
    fn start_sum(&mut self, bucket: Vec<f32>) -> Result<Self::Sum, TrainError>;
    /// Gives a started sum a chance to go on.
    fn progress(&mut self, sum: &mut Self::Sum) -> Result<(), TrainError>;
    /// Waits for a started sum.
    fn finish_sum(&mut self, sum: Self::Sum) -> Result<Vec<f32>, TrainError>;
}

/// The ranks that `rmpirun` started together, or this one alone.
pub(crate) struct Job {
    world: World,
    /// Sums are made in the node's memory, in these buffers when they are free.
    shared: bool,
    free: Vec<Shared<f32>>,
}

/// A sum under way, in the vector that was given or in the node's memory.
pub(crate) enum Sum {
    Own(Request<Vec<f32>>),
    Shared(Request<Shared<f32>>),
}

impl Job {
    /// Becomes one of them.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] when what the launcher handed down cannot be used.
    pub(crate) fn join(shared: bool) -> Result<Self, TrainError> {
        let world = World::init().map_err(|e| TrainError::Ranks(e.to_string()))?;
        Ok(Self { world, shared, free: Vec::new() })
    }

    /// A buffer of the node's memory for `len` elements: one that was used before, or a new one.
    fn buffer(&mut self, len: usize) -> Result<Shared<f32>, TrainError> {
        match self.free.iter().position(|b| b.len() == len) {
            Some(i) => Ok(self.free.swap_remove(i)),
            None => self.world.alloc(len).map_err(lost),
        }
    }

    /// Ends in good order.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] when others are gone.
    pub(crate) fn leave(self) -> Result<(), TrainError> {
        self.world.finalize().map_err(lost)
    }
}

/// What the library says names rank and host.
#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn lost(error: rmpi::Error) -> TrainError {
    TrainError::Ranks(error.to_string())
}

impl Ranks for Job {
    type Sum = Sum;

    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn describe(&self) -> String {
        let world = &self.world;
        let (near, far): (Vec<u32>, Vec<u32>) = (0..world.size())
            .filter(|p| *p != world.rank())
            .partition(|p| world.node_of(*p) == world.node_of(world.rank()));
        let rails = |peers: &[u32]| {
            let mut rails: Vec<&str> = peers.iter().filter_map(|p| world.rail(*p)).collect();
            rails.sort_unstable();
            rails.dedup();
            if rails.is_empty() { "none".to_owned() } else { rails.join("+") }
        };
        // Between nodes is what a user asks about first; inside a node is told apart from it.
        match (near.is_empty(), far.is_empty()) {
            (_, true) => format!("nodes={} rail={}", world.nodes(), rails(&near)),
            (true, false) => format!("nodes={} rail={}", world.nodes(), rails(&far)),
            (false, false) => {
                format!("nodes={} rail={} local={}", world.nodes(), rails(&far), rails(&near))
            }
        }
    }

    fn share(&mut self, values: &mut [f32]) -> Result<(), TrainError> {
        self.world.comm().bcast(values, 0).map_err(lost)
    }

    fn sum(&mut self, values: &mut [f64]) -> Result<(), TrainError> {
        self.world.comm().allreduce_in_place(values, &Op::Sum).map_err(lost)
    }

    fn start_sum(&mut self, bucket: Vec<f32>) -> Result<Self::Sum, TrainError> {
        if !self.shared {
            return self.world.comm().iallreduce(bucket, &Op::Sum).map(Sum::Own).map_err(lost);
        }
        let mut buffer = self.buffer(bucket.len())?;
        buffer.copy_from_slice(&bucket);
        self.world.comm().iallreduce_shared(buffer, &Op::Sum).map(Sum::Shared).map_err(lost)
    }

    fn progress(&mut self, sum: &mut Self::Sum) -> Result<(), TrainError> {
        // A failure shows again, as an error, when the sum is waited for.
        match sum {
            Sum::Own(request) => request.test(),
            Sum::Shared(request) => request.test(),
        };
        Ok(())
    }

    fn finish_sum(&mut self, sum: Self::Sum) -> Result<Vec<f32>, TrainError> {
        match sum {
            Sum::Own(request) => request.wait().map_err(lost),
            Sum::Shared(request) => {
                let buffer = request.wait().map_err(lost)?;
                let sum = buffer.to_vec();
                self.free.push(buffer);
                Ok(sum)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};

    /// Ranks that are threads of one process: what every collective should give, done the simplest way.
    pub(crate) struct ThreadRanks<'a> {
        rank: usize,
        meet: &'a Barrier,
        table: &'a Mutex<Vec<Vec<f64>>>,
    }

    /// Runs `body` as every rank of `size`; what each returned, in rank order.
    pub(crate) fn in_threads<T: Send>(
        size: usize,
        body: impl Fn(&mut ThreadRanks<'_>) -> T + Sync,
    ) -> Vec<T> {
        let (meet, table) = (Barrier::new(size), Mutex::new(vec![Vec::new(); size]));
        std::thread::scope(|scope| {
            let start = |rank| {
                let (meet, table, body) = (&meet, &table, &body);
                scope.spawn(move || body(&mut ThreadRanks { rank, meet, table }))
            };
            let threads: Vec<_> = (0..size).map(start).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    impl ThreadRanks<'_> {
        /// Everybody's values, in rank order.
        fn exchange(&self, own: Vec<f64>) -> Vec<Vec<f64>> {
            self.table.lock().unwrap()[self.rank] = own;
            self.meet.wait();
            let all = self.table.lock().unwrap().clone();
            self.meet.wait();
            all
        }
    }

    impl Ranks for ThreadRanks<'_> {
        type Sum = Vec<f32>;

        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.table.lock().unwrap().len()
        }

        fn describe(&self) -> String {
            "threads".into()
        }

        fn share(&mut self, values: &mut [f32]) -> Result<(), TrainError> {
            let all = self.exchange(values.iter().map(|&v| v.into()).collect());
            values.iter_mut().zip(&all[0]).for_each(|(v, first)| *v = *first as f32);
            Ok(())
        }

        fn sum(&mut self, values: &mut [f64]) -> Result<(), TrainError> {
            let all = self.exchange(values.to_vec());
            values.iter_mut().enumerate().for_each(|(i, v)| *v = all.iter().map(|row| row[i]).sum());
            Ok(())
        }

        fn start_sum(&mut self, bucket: Vec<f32>) -> Result<Vec<f32>, TrainError> {
            let all = self.exchange(bucket.iter().map(|&v| v.into()).collect());
            Ok((0..bucket.len()).map(|i| all.iter().map(|row| row[i]).sum::<f64>() as f32).collect())
        }

        fn progress(&mut self, _: &mut Vec<f32>) -> Result<(), TrainError> {
            Ok(())
        }

        fn finish_sum(&mut self, sum: Vec<f32>) -> Result<Vec<f32>, TrainError> {
            Ok(sum)
        }
    }
}
