"""SageMaker on one machine: real-time and asynchronous endpoints, and training jobs.

    sagemaker-local --endpoint mine=http://127.0.0.1:8080
    sagemaker-local --endpoint mine=my-image --storage ./objects

A model server is any program that answers GET /ping and POST /invocations. The queue of
asynchronous requests and everything that boto3 makes is in S3: an asynchronous request is accepted
once it is there, and leaves the queue once its output or its failure is there. Kill this program at
any time: its next start finds the requests that had not ended, and sends them again. Only one
process may serve a storage.
"""

__version__ = "0.1.0"
