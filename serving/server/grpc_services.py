"""PredictionService and ModelService of the TF Serving API."""

from __future__ import annotations

from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfhash.serving.server import operations
from tfhash.serving.server.models import Models
from tfhash.serving.server.status import aborting


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; what it does not define answers UNIMPLEMENTED."""

    def __init__(self, models: Models, *, as_content: bool):
        self._models = models
        self._as_content = as_content

    def Predict(self, request, context):
        with aborting(context):
            return operations.predict(self._models, request, as_content=self._as_content)

    def GetModelMetadata(self, request, context):
        with aborting(context):
            return operations.metadata(self._models, request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, models: Models):
        self._models = models

    def GetModelStatus(self, request, context):
        with aborting(context):
            return operations.status(self._models, request)

    def HandleReloadConfigRequest(self, request, context):
        with aborting(context):
            return operations.reload_config(self._models, request)
