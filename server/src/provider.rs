//! Execution providers: what computes, the CPU or an NVIDIA GPU through CUDA.

use std::fmt;

use clap::ValueEnum;
use ort::environment::Environment;
use ort::ep::{self, ArenaExtendStrategy, ExecutionProvider as _};
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, SessionBuilder};
use ort::value::TensorRef;
use prost::Message as _;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::tensor_shape_proto::{Dimension, dimension};
use proto::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};
use thiserror::Error;

use crate::half_precision::round_products;

/// Which execution provider to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProviderChoice {
    /// CUDA where it works, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA; an error where it doesn't work.
    Cuda,
}

/// How CUDA computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Which GPU, counted from 0.
    pub device: i32,
    /// Bytes of GPU memory that the arena of each session may take; none: any number.
    pub memory_limit: Option<usize>,
    /// Whether the factors of products are rounded to TF32's 10 bits. Activations are scored as float32: not by default.
    pub tf32: bool,
    /// Whether weights and other factors of products are rounded to float16.
    pub fp16: bool,
}

/// Which execution provider to use, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderRequest {
    /// Which.
    pub choice: ProviderChoice,
    /// How CUDA computes, if it does.
    pub cuda: CudaOptions,
}

impl From<ProviderChoice> for ProviderRequest {
    fn from(choice: ProviderChoice) -> Self {
        Self {
            choice,
            cuda: CudaOptions::default(),
        }
    }
}

/// The execution provider that is used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    kind: Kind,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
    /// The CPU computes what the GPU can't.
    Cuda(CudaOptions),
}

/// CUDA was asked for by name and doesn't work.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// The library has no CUDA in it.
    #[error(
        "the execution provider CUDA is not part of this ONNX Runtime library; install a build with CUDA, or use \
         `--execution-provider cpu`"
    )]
    NotBuilt,
    /// The library has it, but it can't be loaded or finds no GPU.
    #[error("the execution provider CUDA can't be used; `--execution-provider cpu` does without")]
    Fails(#[from] ort::Error),
}

impl Provider {
    /// The name that users know it by.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Cpu => "CPU",
            Kind::Cuda(_) => "CUDA",
        }
    }

    /// Why it was chosen, and how it computes, for people: "asked for", "no CUDA in this ONNX Runtime library".
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The CPU, for this reason.
    pub fn cpu(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Cpu,
            reason: reason.into(),
        }
    }

    /// Chooses a provider, having computed something with CUDA if that is what is chosen.
    ///
    /// # Errors
    /// [`ProviderError`] where CUDA is asked for by name and doesn't work.
    pub fn choose(request: ProviderRequest, environment: &Environment) -> Result<Self, ProviderError> {
        let ProviderRequest { choice, cuda } = request;
        let chosen = if choice == ProviderChoice::Cpu {
            Self::cpu("asked for")
        } else {
            match (Kind::Cuda(cuda).compute_something(environment), choice) {
                (Ok(()), _) => Self {
                    kind: Kind::Cuda(cuda),
                    reason: format!("it works: {cuda}"),
                },
                (Err(error), ProviderChoice::Cuda) => return Err(error),
                (Err(ProviderError::NotBuilt), _) => Self::cpu("no CUDA in this ONNX Runtime library"),
                (Err(error), _) => {
                    let error = crate::error::chain(&error);
                    tracing::warn!(error, "CUDA doesn't work");
                    Self::cpu(format!("CUDA doesn't work: {error}"))
                }
            }
        };
        tracing::info!(reason = chosen.reason, "{}", chosen.kind.announcement());
        Ok(chosen)
    }

    /// Changes a graph, which has float32 products, into what this provider is to compute.
    pub fn adapt(&self, graph: &mut ModelProto) {
        if matches!(self.kind, Kind::Cuda(options) if options.fp16) {
            round_products(graph);
        }
    }

    /// A session builder that computes with this provider.
    ///
    /// # Errors
    /// Those of ONNX Runtime, where the provider can't be loaded.
    pub fn session_builder(&self, environment: &Environment) -> ort::Result<SessionBuilder> {
        self.kind.session_builder(environment)
    }
}

impl Kind {
    fn announcement(self) -> &'static str {
        match self {
            Self::Cpu => "computing on the CPU",
            Self::Cuda(_) => "computing with CUDA",
        }
    }

    fn session_builder(self, environment: &Environment) -> ort::Result<SessionBuilder> {
        // Nothing but the chosen provider: `ort` would let ONNX Runtime pick devices by itself.
        let builder = Session::builder(environment)?.with_auto_device(AutoDevicePolicy::PreferCPU)?;
        match self {
            Self::Cpu => Ok(builder),
            Self::Cuda(options) => {
                let cuda = ep::CUDA::default()
                    .with_device_id(options.device)
                    .with_tf32(options.tf32);
                let cuda = match options.memory_limit {
                    // Doubling, the default way of growing, would overshoot the limit and fail below it.
                    Some(limit) => cuda
                        .with_memory_limit(limit)
                        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested),
                    None => cuda,
                };
                Ok(builder.with_execution_providers([cuda.build().error_on_failure()])?)
            }
        }
    }

    /// Computes something small with CUDA: a library that loads can still find no GPU, or no driver.
    fn compute_something(self, environment: &Environment) -> Result<(), ProviderError> {
        if !ep::CUDA::is_available()? {
            return Err(ProviderError::NotBuilt);
        }
        let mut builder = self.session_builder(environment)?;
        let mut session = builder.commit_from_memory(&probe().encode_to_vec())?;
        let value = [1.0_f32];
        session.run(ort::inputs![TensorRef::from_array_view(([1_usize], &value[..]))?])?;
        Ok(())
    }
}

impl fmt::Display for CudaOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GPU {}", self.device)?;
        match (self.fp16, self.tf32) {
            (true, _) => write!(formatter, ", products of float16 factors"),
            (false, true) => write!(formatter, ", products of TF32 factors"),
            (false, false) => Ok(()),
        }?;
        match self.memory_limit {
            Some(limit) => write!(formatter, ", at most {limit} bytes"),
            None => Ok(()),
        }
    }
}

/// A model of one node: `y = Relu(x)`, one element.
fn probe() -> ModelProto {
    let one = Dimension {
        value: Some(dimension::Value::DimValue(1)),
    };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: vec![one] }),
    };
    let value = |name: &str| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor.clone())),
        }),
        ..Default::default()
    };
    let node = NodeProto {
        input: vec!["x".into()],
        output: vec!["y".into()],
        op_type: "Relu".into(),
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![node],
        name: "probe".into(),
        input: vec![value("x")],
        output: vec![value("y")],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        graph: Some(graph),
        ..Default::default()
    }
}
