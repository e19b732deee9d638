/**
 * Where the functions stand: in no VPC, or in the subnets and security groups that the deployer names by CDK context
 *
 *     -c vpc=vpc-0a1b -c subnets=subnet-1a,subnet-2b -c security_groups=sg-3c
 *
 * All three are named, not looked up: a synth needs no account, and what it makes depends on nothing but its input.
 */
import { type ISecurityGroup, type IVpc, SecurityGroup, Subnet, type SubnetSelection, Vpc } from 'aws-cdk-lib/aws-ec2';
import type { Construct } from 'constructs';
import { SluiceError } from '../../lib/errors.ts';

export interface NetworkIds {
  readonly vpc: string;
  readonly subnets: readonly string[];
  readonly security_groups: readonly string[];
}

/** The part of a function's props that says where it stands. */
export interface Network {
  readonly vpc: IVpc;
  readonly vpcSubnets: SubnetSelection;
  readonly securityGroups: ISecurityGroup[];
}

const ID_FORMS = {
  vpc: /^vpc-[0-9a-f]{8,17}$/,
  subnets: /^subnet-[0-9a-f]{8,17}$/,
  security_groups: /^sg-[0-9a-f]{8,17}$/,
} as const;
type Key = keyof typeof ID_FORMS;
const KEYS = Object.keys(ID_FORMS) as Key[];

/** The ids in the context; null when none is given. Throws USAGE when some are missing or do not look like ids. */
export function networkIdsOf(context: (key: string) => unknown): NetworkIds | null {
  const given = new Map(KEYS.map((key) => [key, idsOf(key, context(key))]));
  const missing = KEYS.filter((key) => given.get(key)?.length === 0);
  if (missing.length === KEYS.length) return null;
  if (missing.length > 0) {
    throw new SluiceError('USAGE', {
      problem: `A VPC needs the context keys ${KEYS.join(', ')}; missing: ${missing.join(', ')}.`,
      remedy:
        'Give all three: -c vpc=vpc-… -c subnets=subnet-…,subnet-… -c security_groups=sg-…; or none, to stay outside any VPC.',
    });
  }
  const [vpc = '', ...others] = given.get('vpc') ?? [];
  if (others.length > 0)
    throw new SluiceError('USAGE', { problem: 'The context key vpc names more than one VPC.', remedy: 'Name one.' });
  return { vpc, subnets: given.get('subnets') ?? [], security_groups: given.get('security_groups') ?? [] };
}

/** Context is text with commas from the command line, or text or a list from cdk.json. */
function idsOf(key: Key, value: unknown): string[] {
  const parts = (Array.isArray(value) ? value : [value]).flatMap(textsOf);
  const odd = parts.find((part) => !ID_FORMS[key].test(part));
  if (odd !== undefined) {
    throw new SluiceError('USAGE', {
      problem: `The context key ${key} holds ${JSON.stringify(odd)}, which is no id of that kind.`,
      remedy: `Ids look like ${ID_FORMS[key].source.slice(1, -1)}; several are separated by commas.`,
    });
  }
  return parts;
}

function textsOf(value: unknown): string[] {
  if (value === undefined || value === null) return [];
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean);
}

export function networkOf(scope: Construct, ids: NetworkIds | null): Network | null {
  if (!ids) return null;
  // The functions get their subnets by id; the zones, which CDK asks for, are used for nothing here.
  const availabilityZones = ids.subnets.map((_, i) => `zone-${i}`);
  return {
    vpc: Vpc.fromVpcAttributes(scope, 'Vpc', { vpcId: ids.vpc, availabilityZones }),
    vpcSubnets: {
      subnets: ids.subnets.map((subnetId, i) =>
        Subnet.fromSubnetAttributes(scope, `Subnet${i}`, {
          subnetId,
          availabilityZone: availabilityZones[i] ?? '',
          routeTableId: 'unused',
        }),
      ),
    },
    // Never changed from here: what may talk to whom is the deployer's decision.
    securityGroups: ids.security_groups.map((id, i) =>
      SecurityGroup.fromSecurityGroupId(scope, `SecurityGroup${i}`, id, { mutable: false }),
    ),
  };
}
