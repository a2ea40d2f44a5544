import { LayerStoreError } from '../../errors.js';
export const seal = (): Promise<never> => Promise.reject(new LayerStoreError('ERR_NOT_SUPPORTED', 'the JavaScript engine has no seal yet'));
