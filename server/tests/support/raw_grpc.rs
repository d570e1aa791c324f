//! gRPC without generated code: every method that the descriptions name can be called.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// What fields for a model's name are called.
const MODEL_FIELDS: [&str; 3] = ["model", "model_name", "name"];

/// Everything that the program describes.
pub struct Descriptions(FileDescriptorSet);

/// A method of a service.
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    input: String,
}

impl Descriptions {
    /// Those that reflection gives.
    pub fn read() -> Self {
        Self(FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap())
    }

    /// Every method of every service.
    pub fn methods(&self) -> Vec<Method> {
        let mut methods = Vec::new();
        for file in &self.0.file {
            for service in &file.service {
                methods.extend(service.method.iter().map(|method| Method {
                    path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    input: method.input_type().into(),
                }));
            }
        }
        methods
    }

    /// A message of a method whose field for a model's name says `model`, be it in the message itself or in one that it
    /// holds, as the first message of a stream does; nothing where there is no such field.
    pub fn naming(&self, method: &Method, model: &str) -> Option<Bytes> {
        let message = self.message(&method.input);
        let held = || {
            message.field.iter().find_map(|field| {
                let inner = (field.r#type() == Type::Message).then(|| self.message(field.type_name()))?;
                let inner = naming(inner, model)?;
                let mut outer = Vec::new();
                encode_key(
                    field.number().try_into().unwrap(),
                    WireType::LengthDelimited,
                    &mut outer,
                );
                encode_varint(inner.len() as u64, &mut outer);
                outer.extend(inner);
                Some(outer)
            })
        };
        naming(message, model).or_else(held).map(Bytes::from)
    }

    /// The message `.package.Message`.
    fn message(&self, name: &str) -> &DescriptorProto {
        let found = self.0.file.iter().find_map(|file| {
            let name = name.strip_prefix(&format!(".{}.", file.package()))?;
            file.message_type.iter().find(|message| message.name() == name)
        });
        found.unwrap_or_else(|| panic!("{name} is not described"))
    }
}

fn naming(message: &DescriptorProto, model: &str) -> Option<Vec<u8>> {
    let field = MODEL_FIELDS.iter().find_map(|name| {
        let mut fields = message.field.iter();
        fields.find(|field| field.r#type() == Type::String && field.name() == *name)
    })?;
    let mut bytes = Vec::new();
    prost::encoding::string::encode(field.number().try_into().unwrap(), &model.to_owned(), &mut bytes);
    Some(bytes)
}

/// The first answer to a message, whether the method streams or not.
pub async fn call(url: String, path: &str, request: Request<Bytes>) -> Result<Option<Bytes>, Status> {
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = request.map(|message| futures_util::stream::iter([message]));
    let path = path.parse().unwrap();
    client
        .streaming(request, path, Raw)
        .await?
        .into_inner()
        .message()
        .await
}

/// Messages as the bytes that they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
