//! The scale of losses under float16, whose gradients would vanish otherwise (Micikevicius et al. 2018).

use serde::{Deserialize, Serialize};

/// Steps without an overflow after which the scale is doubled; PyTorch's.
const PATIENCE: u32 = 2000;

/// A loss is multiplied by it before it is differentiated, and the gradients are divided by it. It is halved when a gradient
/// overflows, and that step isn't made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    factor: f64,
    /// Since the last change.
    steps: u32,
}

impl Default for LossScale {
    /// PyTorch's.
    fn default() -> Self {
        Self {
            factor: 65_536.0,
            steps: 0,
        }
    }
}

impl LossScale {
    /// A power of two.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes note of a step; `finite`: no gradient overflowed.
    pub fn update(&mut self, finite: bool) {
        self.steps += 1;
        if !finite {
            self.factor /= 2.0;
            self.steps = 0;
        } else if self.steps == PATIENCE {
            self.factor *= 2.0;
            self.steps = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_halves_the_scale_and_patience_doubles_it() {
        let mut scale = LossScale::default();
        scale.update(false);
        assert_eq!(scale.factor(), 32_768.0);
        for _ in 1..PATIENCE {
            scale.update(true);
            assert_eq!(scale.factor(), 32_768.0);
        }
        scale.update(true);
        assert_eq!(scale.factor(), 65_536.0);
    }
}
