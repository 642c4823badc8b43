-- Whether nobody else has locked a slot; what must be done before it is emptied would be in vain then.
CREATE FUNCTION {schema}.can_be_emptied(leaving smallint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('LOCK TABLE {schema}.message_%s IN ACCESS EXCLUSIVE MODE', leaving);
    RAISE 'undo the lock';  -- readers wait while the slot is emptied, and not before
EXCEPTION
    WHEN lock_not_available THEN RETURN false;
    WHEN raise_exception THEN RETURN true;
END
$$
