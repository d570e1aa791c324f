//! The networks' formula, written down as loops in double precision. It shares nothing with the lowering but the
//! geometry of the layers.

use model::network::MaxPool;
use model::{Convolution, ConvolutionUnit, Network};

use super::Tensors;

/// A batch of activations in double precision, `[N, C, H, W]` or `[N, classes]`, row-major.
#[derive(Clone)]
pub struct Activation {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// `input` and every layer's activations.
pub fn activations(network: &Network, tensors: &Tensors, images: &Activation) -> Vec<(String, Activation)> {
    let mut forward = Forward {
        tensors,
        recorded: vec![("input".into(), images.clone())],
    };
    let mut x = forward.unit(&network.stem, images);
    x = forward.record("relu", relu(&x));
    if let Some(pool) = &network.max_pool {
        x = forward.record("maxpool", max_pool(pool, &x));
    }
    for stage in &network.stages {
        for block in &stage.blocks {
            let hidden = forward.unit(&block.first, &x);
            let hidden = forward.record(&format!("{}.relu1", block.name), relu(&hidden));
            let mut sum = forward.unit(&block.second, &hidden);
            let residual = match &block.downsample {
                Some(unit) => forward.unit(unit, &x),
                None => x,
            };
            for (value, residual) in sum.values.iter_mut().zip(&residual.values) {
                *value += residual;
            }
            x = forward.record(&block.name, relu(&sum));
        }
        forward.record(&stage.name, x.clone());
    }
    let pooled = forward.record("avgpool", average(&x));
    let (images, features) = (pooled.shape[0], pooled.shape[1]);
    let (weight, bias) = (&tensors["fc.weight"], &tensors["fc.bias"]);
    let mut logits = Activation::zeros(vec![images, bias.len()]);
    for n in 0..images {
        for (class, bias) in bias.iter().enumerate() {
            let products = (0..features)
                .map(|i| f64::from(weight[class * features + i]) * pooled.values[n * features + i]);
            logits.values[n * weight.len() / features + class] = products.sum::<f64>() + f64::from(*bias);
        }
    }
    forward.record("fc", logits);
    forward.recorded
}

struct Forward<'a> {
    tensors: &'a Tensors,
    recorded: Vec<(String, Activation)>,
}

impl Forward<'_> {
    fn record(&mut self, name: &str, activation: Activation) -> Activation {
        self.recorded.push((name.into(), activation.clone()));
        activation
    }

    fn unit(&mut self, unit: &ConvolutionUnit, x: &Activation) -> Activation {
        let weights = &self.tensors[&unit.convolution.weight_name()];
        let y = convolution(&unit.convolution, weights, x);
        let mut y = self.record(&unit.convolution.name, y);
        let tensor = |suffix: &str| &self.tensors[&format!("{}.{suffix}", unit.norm)];
        let (gamma, beta) = (tensor("weight"), tensor("bias"));
        let (mean, variance) = (tensor("running_mean"), tensor("running_var"));
        let (channels, positions) = (y.shape[1], y.shape[2] * y.shape[3]);
        for (index, value) in y.values.iter_mut().enumerate() {
            let c = index / positions % channels;
            let deviation = (f64::from(variance[c]) + 1e-5).sqrt();
            let normalised = (*value - f64::from(mean[c])) / deviation;
            *value = normalised * f64::from(gamma[c]) + f64::from(beta[c]);
        }
        self.record(&unit.norm_layer, y)
    }
}

impl Activation {
    fn zeros(shape: Vec<usize>) -> Self {
        let values = vec![0.0; shape.iter().product()];
        Self { shape, values }
    }

    /// Nothing outside the image.
    fn at(&self, [n, c]: [usize; 2], row: isize, column: isize) -> Option<f64> {
        let (height, width) = (self.shape[2], self.shape[3]);
        let row = usize::try_from(row).ok().filter(|&row| row < height)?;
        let column = usize::try_from(column).ok().filter(|&column| column < width)?;
        Some(self.values[((n * self.shape[1] + c) * height + row) * width + column])
    }
}

/// `y[n,o,h,w] = Σ_{i,a,b} W[h,w,i,a,b,o] · x_pad[n,i,h·s+a,w·s+b]`; a convolution has the same W everywhere.
fn convolution(geometry: &Convolution, weights: &[f32], x: &Activation) -> Activation {
    let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
    let (k, s, p) = (geometry.kernel_size, geometry.stride, geometry.padding);
    let (height, width) = (geometry.output.height, geometry.output.width);
    let weight = |[h, w]: [usize; 2], [i, a, b]: [usize; 3], o: usize| {
        let index = if geometry.locally_connected {
            ((h * width + w) * k * k * inputs + (a * k + b) * inputs + i) * outputs + o
        } else {
            ((o * inputs + i) * k + a) * k + b
        };
        f64::from(weights[index])
    };
    let images = x.shape[0];
    let mut y = Activation::zeros(vec![images, outputs, height, width]);
    let mut index = 0;
    for n in 0..images {
        for o in 0..outputs {
            for h in 0..height {
                for w in 0..width {
                    let mut sum = 0.0;
                    for i in 0..inputs {
                        for a in 0..k {
                            for b in 0..k {
                                let row = (h * s + a) as isize - p as isize;
                                let column = (w * s + b) as isize - p as isize;
                                if let Some(value) = x.at([n, i], row, column) {
                                    sum += weight([h, w], [i, a, b], o) * value;
                                }
                            }
                        }
                    }
                    y.values[index] = sum;
                    index += 1;
                }
            }
        }
    }
    y
}

fn relu(x: &Activation) -> Activation {
    Activation {
        shape: x.shape.clone(),
        values: x.values.iter().map(|value| value.max(0.0)).collect(),
    }
}

fn max_pool(pool: &MaxPool, x: &Activation) -> Activation {
    let (images, channels) = (x.shape[0], x.shape[1]);
    let mut y = Activation::zeros(vec![images, channels, pool.output.height, pool.output.width]);
    let mut index = 0;
    for n in 0..images {
        for c in 0..channels {
            for h in 0..pool.output.height {
                for w in 0..pool.output.width {
                    let offset = |position: usize, element: usize| {
                        (position * pool.stride + element) as isize - pool.padding as isize
                    };
                    let window = (0..pool.kernel_size)
                        .flat_map(|a| (0..pool.kernel_size).map(move |b| (a, b)))
                        .filter_map(|(a, b)| x.at([n, c], offset(h, a), offset(w, b)));
                    y.values[index] = window.fold(f64::NEG_INFINITY, f64::max);
                    index += 1;
                }
            }
        }
    }
    y
}

fn average(x: &Activation) -> Activation {
    let positions = x.shape[2] * x.shape[3];
    Activation {
        shape: vec![x.shape[0], x.shape[1], 1, 1],
        values: x
            .values
            .chunks(positions)
            .map(|map| map.iter().sum::<f64>() / positions as f64)
            .collect(),
    }
}
