//! What models take and give, how they are configured, and how often they were asked.

use proto::inference::model_metadata_response::TensorMetadata;
use proto::inference::{
    DataType, InferStatistics, MemoryUsage, ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelInput,
    ModelMetadataRequest, ModelMetadataResponse, ModelOutput, ModelReadyRequest, ModelReadyResponse,
    ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse, ModelVersionPolicy, StatisticDuration,
    model_version_policy,
};

use crate::error::ServerError;
use crate::front::call::Call;
use crate::oip::DATATYPE;
use crate::oip::metadata::{BACKEND, ModelDescription, PLATFORM, TensorDescription};
use crate::oip::statistics::{self, Total};
use crate::state::State;

/// A model that doesn't exist isn't ready.
pub(super) fn ready(state: &State, request: &ModelReadyRequest) -> ModelReadyResponse {
    let ready = state
        .repository()
        .and_then(|repository| repository.is_ready(&request.name, &request.version));
    ModelReadyResponse {
        ready: ready.unwrap_or(false),
    }
}

pub(super) async fn metadata(
    state: &State,
    request: &ModelMetadataRequest,
) -> Result<ModelMetadataResponse, ServerError> {
    let model = ModelDescription::of(state, &request.name, &request.version).await?;
    let tensor = |tensor: TensorDescription| TensorMetadata {
        shape: tensor.shape(),
        name: tensor.name,
        datatype: DATATYPE.into(),
    };
    Ok(ModelMetadataResponse {
        name: model.bundle.model.clone(),
        versions: model.versions.clone(),
        platform: PLATFORM.into(),
        inputs: vec![tensor(model.input())],
        outputs: model.outputs().map(tensor).collect(),
    })
}

pub(super) async fn config(
    state: &State,
    request: &ModelConfigRequest,
) -> Result<ModelConfigResponse, ServerError> {
    let model = ModelDescription::of(state, &request.name, &request.version).await?;
    let data_type = DataType::TypeFp32 as i32;
    let input = model.input();
    let input = ModelInput {
        name: input.name,
        data_type,
        dims: input.image_shape,
    };
    let output = model.outputs().map(|output| ModelOutput {
        name: output.name,
        data_type,
        dims: output.image_shape,
    });
    let all = model_version_policy::PolicyChoice::All(model_version_policy::All {});
    Ok(ModelConfigResponse {
        config: Some(ModelConfig {
            name: model.bundle.model.clone(),
            platform: PLATFORM.into(),
            version_policy: Some(ModelVersionPolicy {
                policy_choice: Some(all),
            }),
            max_batch_size: i32::try_from(state.limits.images).unwrap_or(i32::MAX),
            input: vec![input],
            output: output.collect(),
            backend: BACKEND.into(),
        }),
    })
}

pub(super) fn statistics(
    state: &State,
    call: &Call,
    request: &ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, ServerError> {
    let mut entries = statistics::entries(state, &request.name, &request.version)?;
    entries.retain(|entry| call.may_see(&entry.model));
    let model = |entry: statistics::Entry| {
        let counted = entry.statistics;
        let memory = entry.weight_bytes.map(|byte_size| MemoryUsage {
            r#type: "CPU".into(),
            id: 0,
            byte_size,
        });
        ModelStatistics {
            name: entry.model,
            version: entry.version.to_string(),
            last_inference: counted.last_inference,
            inference_count: counted.images,
            execution_count: counted.batches,
            inference_stats: Some(InferStatistics {
                success: Some(duration(counted.success)),
                fail: Some(duration(counted.fail)),
                queue: Some(duration(counted.queue)),
                compute_input: Some(duration(counted.decode)),
                compute_infer: Some(duration(counted.compute)),
                compute_output: Some(duration(counted.reduce)),
                cache_hit: Some(StatisticDuration::default()),
                cache_miss: Some(StatisticDuration::default()),
            }),
            batch_stats: Vec::new(),
            memory_usage: memory.into_iter().collect(),
        }
    };
    Ok(ModelStatisticsResponse {
        model_stats: entries.into_iter().map(model).collect(),
    })
}

fn duration(total: Total) -> StatisticDuration {
    StatisticDuration {
        count: total.count,
        ns: total.nanoseconds,
    }
}
