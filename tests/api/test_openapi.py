"""The OpenAPI document: Tapis's names where Tapis has them, and nothing that its clients could not read."""

import pytest

from api.schemas.apps import AppBody
from api.schemas.jobs import BatchSubmit, JobSubmit
from api.schemas.systems import SystemBody
from tests.api.world import World

TAPIS = """
list_pods create_pod get_pod update_pod delete_pod get_derived_pod get_pod_credentials get_pod_logs get_pod_permissions
set_pod_permission delete_pod_permission exec_pod_commands start_pod stop_pod restart_pod save_pod_as_template_tag
ensure_jupyter_pod list_templates add_template list_templates_and_tags get_template update_template delete_template
list_template_tags add_template_tag get_template_tag get_template_permissions set_template_permission
delete_template_permission get_images add_image add_images get_image delete_image healthcheck list_snapshots
traefik_config error_handler
create_snapshot get_snapshot update_snapshot delete_snapshot list_snapshot_files get_snapshot_contents
get_snapshot_permissions set_snapshot_permission delete_snapshot_permission list_volumes create_volume get_volume
update_volume delete_volume list_volume_files get_volume_contents upload_to_volume get_volume_permissions
set_volume_permission delete_volume_permission upload_to_jupyter upload_to_pod
list_sites get_site list_tenants get_tenant create_token get_server_metadata get_userinfo list_profiles get_profile
getSystems createSystem matchConstraints getSystem patchSystem putSystem isEnabled enableSystem disableSystem
deleteSystem undeleteSystem getUserCredential createUserCredential removeUserCredential checkUserCredential getUserPerms
grantUserPerms revokeUserPerms revokeUserPerm getApps createAppVersion getAppLatestVersion getApp patchApp putApp
enableApp disableApp enableAppVersion disableAppVersion lockApp unlockApp deleteApp undeleteApp checkHealth ready
readycheck sayHello hideJob unhideJob cancelJob getJob getJobHistory getJobList getJobOutputDownload getJobOutputList
getJobSearchList getJobStatus getResubmitRequestJson resubmitJob submitJob
listFiles mkdir insert moveCopy delete getContents
"""
"""operationIds of the 25.4.0 specifications that Berth serves; a second isEnabled carries the name of its service."""


async def document(world: World) -> dict:
    return (await world.call("GET", "/v3/openapi.json", user=None)).json()


def operations(document: dict):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


async def test_operations_are_named_as_in_tapis_and_only_once(world: World):
    found = [operation["operationId"] for _, _, operation in operations(await document(world))]
    assert len(set(found)) == len(found)
    assert not set(TAPIS.split()) - set(found)


async def test_the_document_is_openapi_3_1_and_says_what_each_operation_is_for(world: World):
    openapi = await document(world)
    assert openapi["openapi"].startswith("3.1")
    silent = [path for path, _, operation in operations(openapi) if not operation.get("description")]
    assert not silent


async def test_no_result_is_a_bare_scalar_but_a_text(world: World):
    openapi = await document(world)
    schemas = openapi["components"]["schemas"]
    scalars = {"integer", "number", "boolean", "null"}
    bare = [
        name
        for name, schema in schemas.items()
        if name.startswith("Envelope") and schema["properties"]["result"].get("type") in scalars
    ]
    assert not bare


@pytest.mark.parametrize("body", [JobSubmit, BatchSubmit, SystemBody, AppBody])
async def test_a_body_shows_examples_that_hold(world: World, body):
    examples = (await document(world))["components"]["schemas"][body.__name__]["examples"]
    assert examples
    for example in examples:
        body.model_validate(example)
