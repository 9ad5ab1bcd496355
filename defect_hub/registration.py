"""Makes our model types known to transformers' Auto classes and pipelines."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from defect_hub.modeling.configuration_spgdd_gpt import SpgddGptConfig
from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.pipeline_defect_diagnosis import DefectDiagnosisPipeline
from defect_hub.modeling.processing_spgdd_gpt import SpgddGptProcessor


def register() -> None:
    """Register configs, models, processors and the pipeline; also lets `save_pretrained` write remote code."""
    AutoConfig.register("spgdd_gpt", SpgddGptConfig, exist_ok=True)
    AutoModel.register(SpgddGptConfig, SpgddGptForConditionalGeneration, exist_ok=True)
    AutoModelForImageTextToText.register(SpgddGptConfig, SpgddGptForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(SpgddGptConfig, SpgddGptProcessor, exist_ok=True)
    # Without these a checkpoint saved from the installed package would name remote code and not carry it.
    SpgddGptConfig.register_for_auto_class()
    SpgddGptForConditionalGeneration.register_for_auto_class("AutoModel")
    SpgddGptProcessor.register_for_auto_class()
    if "defect-diagnosis" not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            "defect-diagnosis", pipeline_class=DefectDiagnosisPipeline, pt_model=AutoModel, type="multimodal"
        )
