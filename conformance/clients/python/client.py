"""The Python client against a server: CustomObjectsApi, a watch, a Lease. Prints what it saw and ends with "ok".

    client.py KUBECONFIG NAMESPACE
"""

import sys

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

GROUP, VERSION, PLURAL = "wasmbed.github.io", "v1alpha1", "devices"


def device(name, **spec):
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Device",
        "metadata": {"name": name, "labels": {"site": "lab"}},
        "spec": spec,
    }


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == code, (error.status, error.body)
        return
    raise AssertionError(f"{call.__name__} should have been refused with {code}")


def devices(namespace):
    api = client.CustomObjectsApi()
    where = (GROUP, VERSION, namespace, PLURAL)
    listed = api.list_namespaced_custom_object(*where)
    version = listed["metadata"]["resourceVersion"]
    created = api.create_namespaced_custom_object(*where, device("a", approved=False))
    assert created["metadata"]["generation"] == 1 and created["metadata"]["uid"]
    refused(409, api.create_namespaced_custom_object, *where, device("a"))
    refused(422, api.create_namespaced_custom_object, *where, device("b", approved="perhaps"))
    created["spec"]["approved"] = True
    replaced = api.replace_namespaced_custom_object(*where, "a", created)
    assert replaced["metadata"]["generation"] == 2
    refused(409, api.replace_namespaced_custom_object, *where, "a", created)
    patched = api.patch_namespaced_custom_object(*where, "a", {"spec": {"device_type": "mcu"}})
    assert patched["spec"]["device_type"] == "mcu" and patched["spec"]["approved"] is True
    patched = api.patch_namespaced_custom_object_status(*where, "a", {"status": {"phase": "Connected"}})
    assert patched["status"]["phase"] == "Connected"
    assert api.get_namespaced_custom_object(*where, "a")["status"]["phase"] == "Connected"
    for index in range(5):
        api.create_namespaced_custom_object(*where, device(f"p{index}"))
    page = api.list_namespaced_custom_object(*where, limit=4, label_selector="site=lab")
    token = page["metadata"]["continue"]
    rest = api.list_namespaced_custom_object(*where, limit=4, _continue=token, label_selector="site=lab")
    assert len(page["items"]) == 4 and len(rest["items"]) == 2
    found = api.list_namespaced_custom_object(*where, field_selector="metadata.name=p3")
    assert [item["metadata"]["name"] for item in found["items"]] == ["p3"]
    ended = api.delete_namespaced_custom_object(*where, "a")
    assert ended["status"] == "Success"
    refused(404, api.get_namespaced_custom_object, *where, "a")
    seen = []
    stream = watch.Watch()
    arguments = {"resource_version": version, "timeout_seconds": 20}
    for event in stream.stream(api.list_namespaced_custom_object, *where, **arguments):
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if event["type"] == "DELETED":
            stream.stop()
    assert seen[0] == ("ADDED", "a") and seen[-1] == ("DELETED", "a"), seen
    assert [kind for kind, name in seen if name == "a"] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"], seen
    print("devices", len(seen))


def leases(namespace):
    api = client.CoordinationV1Api()
    body = client.V1Lease(
        metadata=client.V1ObjectMeta(name="python"),
        spec=client.V1LeaseSpec(holder_identity="one", lease_duration_seconds=15),
    )
    lease = api.create_namespaced_lease(namespace, body)
    lease.spec.holder_identity = "two"
    lease = api.replace_namespaced_lease("python", namespace, lease)
    assert lease.spec.holder_identity == "two"
    stale = lease.metadata.resource_version
    api.patch_namespaced_lease("python", namespace, {"spec": {"leaseTransitions": 1}})
    lease.metadata.resource_version = stale
    refused(409, api.replace_namespaced_lease, "python", namespace, lease)
    assert [item.metadata.name for item in api.list_namespaced_lease(namespace).items] == ["python"]
    api.delete_namespaced_lease("python", namespace)
    print("leases")


def main():
    kubeconfig, namespace = sys.argv[1:]
    config.load_kube_config(kubeconfig)
    assert client.VersionApi().get_code().major == "1"
    assert any(group.name == GROUP for group in client.ApisApi().get_api_versions().groups)
    namespaces = client.CoreV1Api()
    namespaces.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
    devices(namespace)
    leases(namespace)
    namespaces.delete_namespace(namespace)
    print("ok")


main()
