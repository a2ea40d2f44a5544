import { LayerStoreError } from '../../errors.js';
export const verifyTree = (): Promise<never> => Promise.reject(new LayerStoreError('ERR_NOT_SUPPORTED', 'the JavaScript engine has no verifyTree yet'));
