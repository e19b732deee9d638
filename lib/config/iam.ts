/**
 * The region of a database that is connected to with an IAM token: the host tells it where it is the endpoint's own name, else the file does.
 */
import type { PasswordReference } from './secret-reference.ts';

/**
 * `NAME.ID.REGION.rds.amazonaws.com`, of instances, clusters and proxies; in China also `NAME.ID.rds.REGION.amazonaws.com.cn`
 * (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_CommonTasks.Connect.html).
 */
const ENDPOINTS = [
  /\.([a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2})\.rds\.amazonaws\.com(?:\.cn)?$/i,
  /\.rds\.([a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2})\.amazonaws\.com\.cn$/i,
];

/** The region; null where neither the reference nor the host tells it. */
export function iamRegion(password: PasswordReference & { readonly from: 'iam' }, host: string | null): string | null {
  if (password.region !== null || host === null) return password.region;
  for (const endpoint of ENDPOINTS) {
    const region = endpoint.exec(host)?.[1];
    if (region !== undefined) return region.toLowerCase();
  }
  return null;
}
