-- Makes the sequence of ids anew if it cannot be read, with the same grants.
-- A standby writes a new unlogged sequence to disk only at its next restartpoint, minutes later. Promoted before, it has
-- a sequence that fails every call, with "bad magic number in sequence", and nothing but a new one helps.
-- Call it behind the lock of `log`, and wait for that lock without one on the sequence: it could be a deadlock.
CREATE FUNCTION {schema}.mend_sequence() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    granting text;
    grants text[];
BEGIN
    PERFORM nextval('{schema}.message_id');
EXCEPTION WHEN internal_error OR data_corrupted THEN
    grants := ARRAY(
        SELECT concat('GRANT ', a.privilege_type, ' ON SEQUENCE {schema}.message_id TO ',
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = '{schema}.message_id'::regclass
    );
    DROP SEQUENCE {schema}.message_id;
    CREATE UNLOGGED SEQUENCE {schema}.message_id INCREMENT BY 512;
    FOREACH granting IN ARRAY grants LOOP
        EXECUTE granting;
    END LOOP;
END
$$
