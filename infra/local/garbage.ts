/**
 * What a function leaves behind is collected when it ends. Its buffers are not in V8's heap, and a thread that idles has no cause to look for them: a
 * row of 100 MB would stay until the next one comes.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Below this it is not worth the pause. */
const LEFT_BYTES_MIN = 16 * 1024 * 1024;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

export function collectWhatIsLeft(): void {
  const { external, arrayBuffers } = process.memoryUsage();
  if (external + arrayBuffers >= LEFT_BYTES_MIN) collect();
}
