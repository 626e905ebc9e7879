//! HTTP/1.1 on the streams that peers open.

use std::{convert::Infallible, future::Future};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::BoxError;
use crate::identity::PublicKey;

/// Buffer of a stream, which lives as long as the stream.
const MAX_BUFFER: usize = 64 * 1024;

/// Answers requests on streams until `stop` fires, then lets those in flight end. `open` names a stream's peer, and says how it is
/// answered. The headers of an answer are sent as they are, and no others. Whoever accepts the streams bounds their number.
pub(crate) async fn serve_streams<S, Io, A, F, B>(
    mut streams: mpsc::Receiver<S>,
    stop: CancellationToken,
    open: impl Fn(S) -> (PublicKey, Io, A),
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = serving.join_next() => {}
            stream = streams.recv() => match stream {
                Some(stream) => {
                    let (peer, io, answer) = open(stream);
                    serving.spawn(serve(peer, io, answer, stop.clone()));
                }
                None => break,
            },
        }
    }
    drop(streams);
    while serving.join_next().await.is_some() {}
}

async fn serve<Io, A, F, B>(peer: PublicKey, io: Io, answer: A, stop: CancellationToken)
where
    Io: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
{
    let service = service_fn(move |request| {
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a stream of requests ended");
    }
}
