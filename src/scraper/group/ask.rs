//! Requests to a member: HTTP/1.1 over streams of its link, which are pooled and kept alive.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;

use super::Group;
use crate::{
    http::{BoxError, Connection, Place, PooledBody, SendError},
    identity::PublicKey,
    network::LinkId,
    wire::group::GROUP_PROTOCOL,
};

impl Group {
    /// Sends a request to a member. `place` is held until the answer was read or dropped.
    pub(super) async fn ask(
        &self,
        member: PublicKey,
        request: Request<Empty<Bytes>>,
        place: impl Place + 'static,
    ) -> Result<Response<PooledBody<PublicKey, LinkId>>, SendError<BoxError>> {
        let response = self.0.streams.send(member, request, self.open(&member)).await?;
        Ok(response.map(|body| body.holding(place)))
    }

    async fn open(&self, member: &PublicKey) -> Result<Connection<LinkId>, BoxError> {
        let stream = self.0.network.open(member, GROUP_PROTOCOL).await?;
        let link = stream.link();
        Ok(self.0.streams.connect(stream, link).await?)
    }
}
