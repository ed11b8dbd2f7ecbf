//! What a user may do, in the words of the Kubernetes API.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use wasmbed_testbed::{Cluster, User};

/// Asks as one user. `kubectl auth can-i` asks the same, once it has read which resources there are.
pub(crate) struct Access(Api<SelfSubjectAccessReview>);

impl Access {
    pub(crate) async fn of(cluster: &Cluster, user: &User) -> Result<Self> {
        Ok(Self::with(cluster.client(user).await?))
    }

    pub(crate) fn with(client: Client) -> Self {
        Self(Api::all(client))
    }

    /// Whether the user may do that.
    pub(crate) async fn may(&self, what: ResourceAttributes) -> Result<bool> {
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(what), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let answer =
            self.0.create(&PostParams::default(), &review).await.context("can't ask what is allowed")?;
        Ok(answer.status.context("a review has an answer")?.allowed)
    }

    /// Whether the user may do that with one Secret.
    pub(crate) async fn may_secret(&self, verb: &str, namespace: &str, name: &str) -> Result<bool> {
        self.may(ResourceAttributes {
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            resource: Some("secrets".to_owned()),
            name: Some(name.to_owned()),
            ..ResourceAttributes::default()
        })
        .await
    }
}
