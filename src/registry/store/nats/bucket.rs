//! A key-value bucket: a stream of NATS JetStream with one message a key (ADR-8 of NATS).

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use async_nats::{
    HeaderMap, HeaderValue,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        self, ErrorCode,
        context::{ContextBuilder, GetStreamErrorKind, PublishErrorKind},
        kv,
        stream::{self, DiscardPolicy, Info, LastRawMessageErrorKind, StorageType},
    },
};

use super::members;
use crate::{
    nats::NatsUrl,
    registry::Member,
    telemetry::{Chain, escaped},
};

/// The bucket of a URL without a path.
const DEFAULT_NAME: &str = "narthex";
/// Longest wait for an answer of NATS.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Changes that wait for their acknowledgement at once.
pub(super) const IN_FLIGHT: usize = 256;

/// The header and its value that make a publication a removal.
const OPERATION: &str = "KV-Operation";
const REMOVAL: &str = "DEL";

/// The bucket of a store. Errors are what NATS says, for a log.
#[derive(Clone)]
pub(super) struct Bucket {
    context: jetstream::Context,
    name: String,
}

/// What became of a publication.
pub(super) enum Published {
    At(u64),
    /// The key's last revision is not the base.
    Overtaken,
}

/// The last message of a key.
pub(super) struct Last {
    pub(super) revision: u64,
    pub(super) value: Vec<u8>,
    pub(super) is_removal: bool,
}

impl Bucket {
    /// The bucket that the URL names after its servers.
    pub(super) fn of(client: async_nats::Client, url: &NatsUrl) -> Result<Self, &'static str> {
        let name = url.path().unwrap_or(DEFAULT_NAME);
        if !name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')) {
            return Err("the name of a bucket has letters, digits, - and _ only");
        }
        let context = ContextBuilder::new().timeout(TIMEOUT).ack_timeout(TIMEOUT).max_ack_inflight(4 * IN_FLIGHT);
        Ok(Self { context: context.build(client), name: name.to_owned() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn stream(&self) -> String {
        format!("KV_{}", self.name)
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    /// The bucket, which is made if it is missing: as `nats kv add` makes one. (`create_key_value` asks for the account first, in a
    /// way that servers before 2.10 do not answer.)
    pub(super) async fn open(&self) -> Result<kv::Store, String> {
        let missing = match self.context.get_key_value(&self.name).await {
            Ok(bucket) => return Ok(bucket),
            Err(error) => said(error),
        };
        tracing::debug!(error = missing, bucket = self.name, "the registry's bucket is missing, and is made");
        let config = stream::Config {
            name: self.stream(),
            description: Some("the targets of narthex scrapers".to_owned()),
            subjects: vec![self.subject(">")],
            max_messages_per_subject: 1,
            storage: StorageType::File,
            num_replicas: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..stream::Config::default()
        };
        self.context.create_stream(config).await.map_err(said)?;
        self.context.get_key_value(&self.name).await.map_err(said)
    }

    /// What the bucket's stream is now.
    pub(super) async fn info(&self) -> Result<Info, String> {
        self.look().await?.ok_or_else(|| "the bucket is missing".to_owned())
    }

    /// As [`info`](Self::info); none if there is no bucket.
    pub(super) async fn look(&self) -> Result<Option<Info>, String> {
        match self.context.get_stream(self.stream()).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(said(error)),
            },
        }
    }

    /// Publishes on top of the revision `base`; 0 is that of a key that was never there.
    pub(super) async fn publish(
        &self,
        key: &str,
        value: Vec<u8>,
        is_removal: bool,
        base: u64,
    ) -> Result<Published, String> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(base));
        if is_removal {
            headers.insert(OPERATION, REMOVAL);
        }
        let sent = self.context.publish_with_headers(self.subject(key), headers, value.into()).await;
        match sent.map_err(said)?.await {
            Ok(ack) => Ok(Published::At(ack.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Published::Overtaken),
            Err(error) => Err(said(error)),
        }
    }

    /// The last message of a key, by the leader's word.
    pub(super) async fn last(&self, key: &str) -> Result<Option<Last>, String> {
        let stream = self.context.get_stream_no_info(self.stream()).await.map_err(said)?;
        match stream.get_last_raw_message_by_subject(&self.subject(key)).await {
            Ok(message) => Ok(Some(Last {
                revision: message.sequence,
                value: message.payload.to_vec(),
                is_removal: message.headers.get(OPERATION).is_some(),
            })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(said(error)),
        }
    }

    /// Notes a scraper, whatever was noted of it before, and returns the revision.
    pub(super) async fn note(&self, member: &Member, run: u64) -> Result<u64, String> {
        let (key, value) = members::note(member, run, SystemTime::now());
        let sent = self.context.publish(self.subject(&key), value.into()).await;
        sent.map_err(said)?.await.map(|ack| ack.sequence).map_err(said)
    }
}

/// Tells a bucket from another of the same name.
pub(super) fn created(info: &Info) -> i128 {
    info.created.unix_timestamp_nanos()
}

/// What an error of NATS says, with its causes.
pub(super) fn said(error: impl Error + 'static) -> String {
    escaped(&Chain(&error).to_string()).into_owned()
}
