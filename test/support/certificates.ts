/**
 * Certificates for tests: an authority of one test, and what it issues to servers and clients. Nothing of it is kept.
 */
import 'reflect-metadata';
import { createPrivateKey, type webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  type JsonGeneralName,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

export interface IssueOptions {
  /** Names of a server. */
  readonly names?: readonly string[];
  /** Addresses of a server. */
  readonly addresses?: readonly string[];
  /** Valid until yesterday. */
  readonly expired?: boolean;
}

/** All of it PEM text. */
export interface Issued {
  readonly cert: string;
  /** PKCS #8. */
  readonly key: string;
  /** The key under a passphrase: PKCS #8, and the older form of OpenSSL. */
  readonly encryptedKey: (passphrase: string, form: 'pkcs8' | 'pkcs1') => string;
}

export interface Authority {
  /** Its own certificate as PEM text. */
  readonly cert: string;
  /** A certificate whose CN is `name`. */
  readonly issue: (name: string, options?: IssueOptions) => Promise<Issued>;
}

/** RSA, because only its keys have the older encrypted form. */
const ALGORITHM = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  publicExponent: new Uint8Array([1, 0, 1]),
  modulusLength: 2048,
};
const DAY_MS = 86_400_000;

export async function makeAuthority(name: string): Promise<Authority> {
  const keys = await newKeys();
  const own: X509Certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: `CN=${name}`,
    ...validity(false),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 1, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  return {
    cert: pem(own),
    issue: async (subject, { names = [], addresses = [], expired = false } = {}) => {
      const { privateKey, publicKey } = await newKeys();
      const alternatives: JsonGeneralName[] = [
        ...names.map((value) => ({ type: 'dns' as const, value })),
        ...addresses.map((value) => ({ type: 'ip' as const, value })),
      ];
      const cert = await X509CertificateGenerator.create({
        serialNumber: newSerial(),
        subject: `CN=${subject}`,
        issuer: own.subject,
        ...validity(expired),
        signingAlgorithm: ALGORITHM,
        publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new BasicConstraintsExtension(false),
          ...(alternatives.length === 0 ? [] : [new SubjectAlternativeNameExtension(alternatives)]),
        ],
      });
      const key = createPrivateKey({
        key: Buffer.from(await crypto.subtle.exportKey('pkcs8', privateKey)),
        format: 'der',
        type: 'pkcs8',
      });
      return {
        cert: pem(cert),
        key: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
        encryptedKey: (passphrase, type) =>
          key.export({ type, format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString(),
      };
    },
  };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

function newSerial(): string {
  return `01${Buffer.from(crypto.getRandomValues(new Uint8Array(8))).toString('hex')}`;
}

function validity(expired: boolean): { notBefore: Date; notAfter: Date } {
  const day = Date.now() - DAY_MS;
  return expired
    ? { notBefore: new Date(day - 10 * DAY_MS), notAfter: new Date(day) }
    : { notBefore: new Date(day), notAfter: new Date(day + 10 * DAY_MS) };
}

function pem(certificate: X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}
