"""What the TF Serving API does, whatever the transport: messages in, messages out."""

from __future__ import annotations

import contextlib

import grpc
from google.protobuf import message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from tfhash.serving.server import wire
from tfhash.serving.server.models import Models
from tfhash.serving.server.status import RequestError, invalid
from tfhash.serving.server.turn import Answer, Turn

SIGNATURE_DEF = "signature_def"


def predict(models: Models, turn: Turn, *, as_content: bool) -> Answer:
    """The PredictResponse to the PredictRequest that is the message of this turn."""
    with contextlib.ExitStack() as using:
        with turn.parsing():
            request = _predict_request(turn)
            _check_spec(request)
            servable = using.enter_context(models.use(request.model_spec))
            job = servable.job(request, turn.working.total)
            del request
            hold = using.enter_context(turn.take(job.size))
        content = job.response(turn, as_content=as_content).SerializeToString()
        return Answer(content, hold.handed_over(len(content)))


def _predict_request(turn: Turn) -> predict_pb2.PredictRequest:
    size = wire.parsed_size(turn.message, turn.most_parsed)
    if size > turn.most_parsed:
        raise RequestError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the fields may take {size} bytes of memory; this server allows {turn.most_parsed}; "
            "tensor_content takes least",
        )
    try:
        return predict_pb2.PredictRequest.FromString(turn.message)
    except message.DecodeError:
        raise RequestError(grpc.StatusCode.INTERNAL, "Exception deserializing request!") from None


def metadata(
    models: Models, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    _check_spec(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != SIGNATURE_DEF:
            raise invalid(f"Metadata field {name} is not supported")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with models.use(request.model_spec) as servable:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def status(
    models: Models, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    _check_spec(request)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in models.statuses(request.model_spec):
        answer = response.model_version_status.add(version=version.number, state=version.state)
        if version.error:
            answer.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
            answer.status.error_message = version.error
        else:
            answer.status.error_code = grpc.StatusCode.OK.value[0]
    return response


def reload_config(
    models: Models, request: model_management_pb2.ReloadConfigRequest
) -> model_management_pb2.ReloadConfigResponse:
    """Serves the models of this list and no others; the answer's status says OK."""
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    models.configure(request.config.model_config_list.config)
    response = model_management_pb2.ReloadConfigResponse()
    response.status.error_code = grpc.StatusCode.OK.value[0]
    return response


def _check_spec(request) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
