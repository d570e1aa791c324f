//! Bodies, compressed as the client says: requests are unpacked up to a limit.

use std::io::{self, Read, Write as _};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::error::ServerError;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all.
    Identity,
    Gzip,
    /// What HTTP calls so: zlib's format.
    Deflate,
}

impl Coding {
    /// A request's coding.
    pub fn of_request(headers: &HeaderMap) -> Result<Self, ServerError> {
        let name = text(headers, &header::CONTENT_ENCODING);
        Self::from_name(&name).ok_or_else(|| {
            ServerError::InvalidArgument(format!(
                "content encoding `{name}` is not supported: gzip, deflate and identity are"
            ))
        })
    }

    /// The coding that an answer should have. Activations hardly shrink, so that they are packed only where the client
    /// names one coding and no other: most libraries offer all they know unasked.
    pub fn of_answer(headers: &HeaderMap) -> Self {
        Self::from_name(&text(headers, &header::ACCEPT_ENCODING)).unwrap_or(Self::Identity)
    }

    /// As headers name it; nothing, where there is nothing to name.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// Unpacks a body that has at most `limit` bytes when it is unpacked.
    pub fn unpack(self, body: Bytes, limit: usize) -> Result<Bytes, ServerError> {
        let unpacked = match self {
            Self::Identity => return Ok(body),
            Self::Gzip => read_limited(GzDecoder::new(&*body), limit),
            Self::Deflate => read_limited(ZlibDecoder::new(&*body), limit),
        };
        let unpacked = unpacked.map_err(|error| {
            let name = self.name().unwrap_or_default();
            ServerError::InvalidArgument(format!("the body can't be unpacked with {name}: {error}"))
        })?;
        unpacked.ok_or(ServerError::BodyTooLarge { limit })
    }

    /// Packs the parts of a body.
    pub fn pack(self, parts: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
        let packed = match self {
            Self::Identity => return Ok(parts),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()?
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()?
            }
        };
        Ok(vec![packed.into()])
    }
}

/// A header's value in lower case; empty where there is none.
fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

/// Nothing, where there are more bytes than that.
fn read_limited(reader: impl Read, limit: usize) -> io::Result<Option<Bytes>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(most).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then(|| bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_can_be_unpacked_up_to_the_limit() {
        let parts = || vec![Bytes::from_static(b"activations"), Bytes::from(vec![0; 5000])];
        for coding in [Coding::Identity, Coding::Gzip, Coding::Deflate] {
            let packed = Bytes::from(coding.pack(parts()).unwrap().concat());
            let unpacked = coding.unpack(packed.clone(), 5011).unwrap();
            assert_eq!(unpacked, parts().concat());
            if coding != Coding::Identity {
                assert!(packed.len() < 200);
                let error = coding.unpack(packed, 5010).unwrap_err();
                assert!(
                    matches!(error, ServerError::BodyTooLarge { limit: 5010 }),
                    "{error}"
                );
                assert!(coding.unpack(Bytes::from_static(b"nonsense"), 5010).is_err());
            }
        }
    }

    #[test]
    fn an_answer_is_packed_where_the_client_names_one_coding() {
        let coding = |accepted: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::ACCEPT_ENCODING,
                header::HeaderValue::from_static(accepted),
            );
            Coding::of_answer(&headers)
        };
        assert_eq!(coding("gzip"), Coding::Gzip);
        assert_eq!(coding("Deflate"), Coding::Deflate);
        assert_eq!(coding("gzip, deflate, br"), Coding::Identity);
        assert_eq!(coding("*"), Coding::Identity);
        assert_eq!(Coding::of_answer(&HeaderMap::new()), Coding::Identity);
    }
}
