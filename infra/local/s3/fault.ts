/** What the S3 server answers when it does not do what was asked: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
const STATUS = {
  BadDigest: 400,
  BucketNotEmpty: 409,
  EntityTooLarge: 400,
  EntityTooSmall: 400,
  IncompleteBody: 400,
  InternalError: 500,
  InvalidArgument: 400,
  InvalidBucketName: 400,
  InvalidPart: 400,
  InvalidPartOrder: 400,
  InvalidRange: 416,
  KeyTooLongError: 400,
  MalformedXML: 400,
  MethodNotAllowed: 405,
  NoSuchBucket: 404,
  NoSuchKey: 404,
  NoSuchUpload: 404,
  NotImplemented: 501,
  PreconditionFailed: 412,
} as const;

export type S3FaultCode = keyof typeof STATUS;

export class S3Fault extends Error {
  override readonly name = 'S3Fault';
  readonly code: S3FaultCode;

  constructor(code: S3FaultCode, message: string) {
    super(message);
    this.code = code;
  }

  get status(): number {
    return STATUS[this.code];
  }
}
