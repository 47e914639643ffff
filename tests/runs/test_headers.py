"""The headers of the CSVs are a contract (design section 4): a change here breaks other people's tools."""

from dataclasses import fields

import pytest

from gpt2x.checkpoints.rows import WeightRow
from gpt2x.runs.collect import JobRow
from gpt2x.tasks.registry import TABLES

HEADERS = {
    "generations.csv": "prompt_id,sample,prompt,completion,n_prompt_tokens,n_new_tokens,finish_reason,logprob,model,"
    "weights,device,dtype,greedy,temperature,top_k,top_p,min_p,typical_p,repetition_penalty,no_repeat_ngram_size,"
    "max_new_tokens,min_new_tokens,stop,num_beams,length_penalty,on_overflow,seed",
    "tokens.csv": "prompt_id,sample,step,rank,token_id,token,logprob,chosen,kept",
    "summary.csv": "model,weights,subject,device,dtype,parameters_subject,parameters_reference,verdict,"
    "first_divergence,probable_cause,max_abs_logit_difference,mean_kl,top1_agreement,generations_matched,generations_total,"
    "relative_difference,error_ratio",
    "causes.csv": "order,sites,cause,known,stage,mode,metric,value,tolerance,difference_before,difference_after,"
    "file,line",
    "parity.csv": "stage,site,mode,metric,value,tolerance,status,note",
    "side_by_side.csv": "prompt,subject_text,reference_text,matched,first_difference,top2_margin,verdict",
    "train.csv": "step,train_loss,val_loss,val_bits_per_byte,lr,tokens",
    "evaluation.csv": "text_id,n_tokens,n_bytes,loss,perplexity,bits_per_byte,stride,model,weights,dtype",
    "benchmark.csv": "engine,dtype,batch,prompt_tokens,new_tokens,ms_per_step,ms_per_step_p10,ms_per_step_p90,"
    "tokens_per_second,ratio_to_transformers,first_token_ms,peak_rss_mb,load_seconds,same_tokens",
    "weights.csv": "source,name,shape,dtype,done,norm,sha256",
    "download.csv": "repository,commit,file,n_bytes,checksum",
    "certificate.csv": "reader,version,independent,verdict,tensors,tensors_equal,tensors_rounded,max_abs_error,"
    "max_abs_logit_difference,mean_kl,top1_agreement,relative_difference,tolerance,texts,texts_same,note",
    "tensors.csv": "reader,tensor,shape,dtype,found,max_abs_error,relative_error",
    "timing.csv": "stage,seconds",
    "jobs.csv": "job,overrides,status,attempts,error,seconds,notes,stale,objective",
}

NOT_JOINED = {"jobs.csv": JobRow, "weights.csv": WeightRow}


@pytest.mark.parametrize("name", HEADERS)
def test_header(name: str) -> None:
    row_type = (TABLES | NOT_JOINED)[name]
    assert ",".join(field.name for field in fields(row_type)) == HEADERS[name]


def test_every_table_has_its_header_here() -> None:
    assert {*TABLES, *NOT_JOINED} == set(HEADERS)
