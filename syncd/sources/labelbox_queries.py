"""What is said to Labelbox, word by word: the queries of its SDK, version 7.17.0, whose answers they agree with.

Pure. The schema is not promised to anyone: each text is the SDK's own, but for PROBE, NAMED, COUNT, SETTINGS and WORK, which pick from the same
types what the SDK picks in several steps. EXPERIMENTAL ones go to `/_gql`. `%d %d` are skip and first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SDK = "7.17.0"

_PROJECT = (
    "autoAuditNumberOfLabels autoAuditPercentage createdAt dataRowCount description editorTaskType isBenchmarkEnabled isConsensusEnabled "
    "lastActivityTime allowedMediaType modelSetupComplete name setupComplete id updatedAt uploadType"
)
_DATASET = "createdAt description name rowCount id updatedAt"
_SLICE = "id name description filter createdAt updatedAt"
_RUN = "createdAt createdBy modelAppId modelId name trainingMetadata id updatedAt"
_ONTOLOGY = "classificationSchemaCount createdAt description mediaType name normalized objectSchemaCount id updatedAt"
_TASK = "completionPercentage createdAt errors metadata name result status status type id updatedAt"
_ROW = (
    "createdAt externalId globalKey mediaAttributes customMetadata { schemaId value } metadataFields { schemaId name value kind } "
    "rowData id updatedAt"
)

PROJECTS = f"query GetProjectsPyApi($param_0: Boolean!){{projects(where: {{deleted: $param_0}} skip: %d first: %d){{{_PROJECT}}}}}"
DATASETS = f"query GetDatasetsPyApi($param_0: Boolean!){{datasets(where: {{deleted: $param_0}} skip: %d first: %d){{{_DATASET}}}}}"
SLICES = f"query GetCatalogSavedQueriesPyApi {{ catalogSavedQueries {{ {_SLICE} }} }}"
MODELS = "query GetModelsPyApi{models(skip: %d first: %d){name ontologyId id}}"
MODEL_RUNS = f"query GetModelModelRunsPyApi($param_0: ID!){{model(where: {{id: $param_0}}){{modelRuns(skip: %d first: %d){{{_RUN}}}}}}}"

PROJECT = f"query GetProjectPyApi($param_0: ID!){{project(where: {{id: $param_0}}){{{_PROJECT}}}}}"
DATASET = f"query GetDatasetPyApi($param_0: ID!){{dataset(where: {{id: $param_0}}){{{_DATASET}}}}}"
SLICE = f"query getSavedQueryPyApi($param_0: ID!) {{ getSavedQuery(id: $param_0) {{ {_SLICE} }} }}"
MODEL_RUN = f"query GetModelRunPyApi($param_0: ID!){{modelRun(where: {{id: $param_0}}){{{_RUN}}}}}"
DATA_ROW = f"query GetDataRowPyApi($param_0: ID!){{dataRow(where: {{id: $param_0}}){{{_ROW}}}}}"

PROBE = "query ProbePyApi($param_0: ID!){project(where: {id: $param_0}){dataRowCount labelCount lastActivityTime}}"
COUNT = """query getDataRowIdenfifiersBySavedQueryPyApi($id: ID!, $from: String, $first: Int!) {
    getDataRowIdentifiersBySavedQuery(input: {savedQueryId: $id, after: $from, first: $first}) { totalCount } }"""

SETTINGS = f"""query GetProjectSettingsPyApi($id: ID!, $workflow: Boolean!) {{
    project(where: {{id: $id}}) {{ {_PROJECT} ontology {{ {_ONTOLOGY} }} }}
    projectWorkflow(projectId: $id) @include(if: $workflow) {{ projectId config createdAt updatedAt }} }}"""
WORK = """query GetProjectWorkPyApi($id: ID!, $from: String, $first: PageSize) { project(where: {id: $id}) {
    taskQueues { dataRowCount description name queueType id }
    batches(after: $from, first: $first) { nodes { consensusSettingsJson createdAt name size id updatedAt } pageInfo { endCursor } } } }"""
EXPERIMENTAL = frozenset({WORK})

USER = "query GetUserPyApi{user{createdAt email isExternalUser isViewer lastLoginAt nickname name picture id updatedAt}}"
_TASKS = "query GetUserCreatedTasksPyApi($param_0: %s, $param_1: ID!){user(where: {id: $param_1}){createdTasks(where: {%s: $param_0} "
_TASKS += f"skip: %%d first: %%d){{{_TASK}}}}}}}"
TASK = _TASKS % ("ID!", "id")
NAMED = _TASKS % ("String!", "name")
CANCEL = "mutation CancelTaskPyApi($id: ID!) { cancelBulkOperationJob(id: $id) { success } }"

HEADER = """query GetExportMetadataHeaderPyApi($where: WhereUniqueIdInput, $streamType: TaskStreamType!)
    {task(where: $where){exportMetadataHeader(streamType: $streamType){totalSize totalLines}}}"""
CHUNK = """query GetExportFileFromOffsetPyApi($where: WhereUniqueIdInput, $streamType: TaskStreamType!, $offset: UInt64!)
    {task(where: $where){exportFileFromOffset(streamType: $streamType, offset: $offset){offsets {start end} lines {start end} file}}}"""


def export(kind: str) -> str:
    """The mutation that starts an export of a `Project`, of the `Catalog`, of a `Slice` or of a `ModelRun`."""
    name = f"exportDataRowsIn{kind}"
    return f"mutation {name}PyApi($input: {name[0].upper()}{name[1:]}Input!){{{name}(input: $input){{taskId isStreamable}}}}"


Condition = Mapping[str, object]


def among(kind: str, ids: Sequence[str]) -> Condition:
    """kind: `data_row_id`, `batch` or `dataset`; at most 2,000 ids."""
    return {"ids": list(ids), "operator": "is", "type": kind}


def between(kind: str, start: str | None, end: str | None) -> Condition:
    """kind: `data_row_last_activity_at` or `labeled_at`; both ends count, None is open. Moments are whole seconds of UTC, written `+0000`: the SDK's
    own conversion of any other offset is wrong, and a moment without offset is taken in the time zone of the key's owner.
    """
    if start is not None and end is not None:
        value: object = {"operator": "BETWEEN", "timezone": "UTC", "value": {"min": start, "max": end}}
    else:
        operator = "LESS_THAN_OR_EQUAL" if start is None else "GREATER_THAN_OR_EQUAL"
        value = {"operator": operator, "timezone": "UTC", "value": end if start is None else start}
    return {"type": kind, "value": value}


def in_status(status: str) -> Condition:
    """`ToLabel`, `InReview`, `InRework` or `Done`."""
    return {"type": "task_queue_not_exist"} if status == "ToLabel" else {"type": "task_queue_status", "status": status}
